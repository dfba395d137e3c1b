"""The benchmark of adapters holds its bounds, and the page has the numbers of its last run."""

from __future__ import annotations

import csv

import pytest

from benchmarks.adapter import misses
from tests.tools import ROOT

with (ROOT / "benchmarks" / "results" / "adapter.csv").open(newline="") as file:
    ROWS = list(csv.DictReader(file))


def test_the_last_run_kept_all_bounds_and_is_on_the_page():
    assert misses(ROWS) == []
    page = (ROOT / "docs" / "bridges.md").read_text()
    for row in ROWS:
        if row["bytes"] != "0":
            assert f"| {int(row['bytes']):,} |" in page, row
        if "values" in row["what"]:
            assert f"| {row['moved']} |" in page, row


@pytest.mark.parametrize(
    ("at", "column", "value"), [(2, "of adapter", "1.021"), (3, "of adapter", "0.601"), (3, "moved", "1.1e-03")]
)
def test_a_bound_that_is_missed_is_named(at, column, value):
    worse = [dict(row) for row in ROWS]
    worse[at][column] = value
    (told,) = misses(worse)
    assert str(float(value)) in told
