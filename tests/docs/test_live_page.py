"""The page of live models: its code runs, its tables are those that were measured."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import diffpack  # noqa: E402
from benchmarks.live import measure, results  # noqa: E402
from benchmarks.live.__main__ import RESULTS  # noqa: E402
from tests.tools import ROOT, live_models  # noqa: E402

PAGE = (ROOT / "docs" / "live.md").read_text()


def test_its_first_block_runs_on_a_model_and_two_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    base = live_models.make("BertModel", tmp_path / "model-folder")
    for at, name in enumerate(["sst2", "rte"]):
        tuned = live_models.scatter(live_models.loaded("BertModel", base), at, 0.1)
        diffpack.extract(base, tuned.state_dict(), f"{name}.dpk")
    model = live_models.loaded("BertModel", base)
    scope = {"model": model, "batch": {"input_ids": torch.tensor([[1, 2]])}}
    block = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[0]
    exec(block, scope)  # noqa: S102 - the page's own code
    assert scope["switcher"].current is None
    assert scope["switcher"].names == ["sst2", "rte"]


def test_its_tables_are_those_that_were_measured():
    rows = results.read(RESULTS)
    assert {row.part for row in rows} == set(measure.PARTS)
    for part in measure.PARTS:
        table = results.table(row for row in rows if row.part == part)
        assert f"<!-- {part}: begin -->\n\n{table}\n\n<!-- {part}: end -->" in PAGE
