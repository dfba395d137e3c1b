"""What models of one base take is measured, in small."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import live_models
from tests.tools.tiny_bert import make_model


def test_both_tables_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    base = make_model(tmp_path / "base")
    monkeypatch.setattr(live_models, "MODELS", 3)
    monkeypatch.setattr(live_models, "_ROUNDS", 2)
    for kind in live_models.KINDS:
        live_models.memory(base, kind)
    live_models.times(base)
    rows = capsys.readouterr().out.splitlines()
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows[:3]] == list(live_models.KINDS)
    assert sum(row.startswith("| `") and row.endswith(" ms |") for row in rows) == 6
