"""The rows of the trainer's table, read and named: what its plot, its table and its claims are made from."""

from __future__ import annotations

import csv
import statistics
from collections import defaultdict
from pathlib import Path

Key = tuple[str, str, str]
"""Method, variant, density, as the rows spell them."""
Groups = dict[Key, list[dict[str, str]]]
"""One task's rows: one a seed."""


def read(path: str) -> dict[str, Groups]:
    """Group the rows: task -> (method, variant, density) -> one row a seed."""
    found: dict[str, Groups] = defaultdict(lambda: defaultdict(list))
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            found[row["task"]][row["method"], row["variant"], row["density"]].append(row)
    return found


def percent(key: Key) -> str:
    """Give a density as % ("" where the method has none)."""
    return f"{100 * float(key[2]):g} %" if float(key[2]) else ""


def named(key: Key) -> str:
    """Give a method's name with its variant and density."""
    method, variant, _ = key
    return " ".join(part for part in (method, f"({variant})" if variant else "", percent(key)) if part)


def between(page: Path, begin: str, end: str, text: str) -> None:
    """Replace what stands between two marks of a page."""
    before, rest = page.read_text().split(begin)
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{rest.split(end)[1]}")


def mean(rows: list[dict[str, str]], column: str) -> float:
    return statistics.fmean(float(row[column]) for row in rows)
