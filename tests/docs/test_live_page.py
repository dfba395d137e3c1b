"""The page of live models: its tables are those that were measured. Its code runs in test_pages."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from benchmarks.live import measure, results  # noqa: E402
from benchmarks.live.__main__ import RESULTS  # noqa: E402
from tests.tools import ROOT  # noqa: E402

PAGE = (ROOT / "docs" / "live.md").read_text()


def test_its_tables_are_those_that_were_measured():
    rows = results.read(RESULTS)
    assert {row.part for row in rows} == set(measure.PARTS)
    for part in measure.PARTS:
        table = results.table(row for row in rows if row.part == part)
        assert f"<!-- {part}: begin -->\n\n{table}\n\n<!-- {part}: end -->" in PAGE
