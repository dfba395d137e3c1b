"""The page on names shows what was measured, and none of it is above the bound."""

from __future__ import annotations

import csv

from benchmarks import names
from tests.tools import ROOT


def test_the_table_is_that_of_the_results() -> None:
    with (ROOT / "benchmarks" / "results" / "names.csv").open(newline="") as file:
        rows = [
            names.Row(pair, variant, int(plain), int(nbytes), float(ratio))
            for pair, variant, plain, nbytes, ratio in list(csv.reader(file))[1:]
        ]
    assert {row.variant for row in rows} == names.VARIANTS.keys()
    assert all(row.ratio == round(row.nbytes / row.plain_bytes, 4) <= names.BOUND for row in rows)
    page = (ROOT / "docs" / "names.md").read_text()
    assert f"{names.START}\n\n{names.table(rows)}\n\n{names.END}" in page
