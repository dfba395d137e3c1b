"""Rows in a CSV file: a number, what was asked of it, and the machine."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One number. `most` is what it may be at most, "" where nothing was asked."""

    part: str
    what: str
    value: str
    unit: str
    most: str
    machine: str

    @property
    def missed(self) -> bool:
        """Whether it is more than was asked."""
        return bool(self.most) and float(self.value) > float(self.most)


def write(path: Path, rows: Iterable[Row]) -> None:
    """Write all rows, in order."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(field.name for field in fields(Row))
        writer.writerows(astuple(row) for row in rows)


def read(path: Path) -> list[Row]:
    """All rows, in order."""
    with path.open(newline="") as file:
        return [Row(**item) for item in csv.DictReader(file)]


def table(rows: Iterable[Row]) -> str:
    """The rows as a Markdown table; what was asked and missed is bold."""
    lines = ["| | measured | asked |", "|---|--:|--:|"]
    for row in rows:
        asked = f"at most {row.most}" if row.most else ""
        value = f"{row.value} {row.unit}".strip()
        lines.append(f"| {row.what} | {f'**{value}, missed**' if row.missed else value} | {asked} |")
    return "\n".join(lines)
