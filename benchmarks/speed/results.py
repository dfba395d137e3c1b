"""Rows in a CSV file, one for each tool and verb on a pair."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path

EXTRACT, APPLY = "extract", "apply"


@dataclass(frozen=True)
class Row:
    """What a tool took for one verb. `plain` are the seconds of the plain process measured in turn with it."""

    kind: str
    megabytes: int
    tool: str
    verb: str
    seconds: float
    plain: float
    diff_bytes: int
    peak_mb: float
    """Of anonymous memory; 0 where it was not measured."""
    machine: str

    @property
    def ratio(self) -> float:
        """Times the plain process."""
        return self.seconds / self.plain

    @property
    def key(self) -> tuple[str, int, str, str]:
        """What the row is about."""
        return self.kind, self.megabytes, self.tool, self.verb


def read(path: Path) -> dict[tuple[str, int, str, str], Row]:
    """All rows, by what they are about."""
    if not path.exists():
        return {}
    kinds = {"int": int, "float": float, "str": str}
    with path.open(newline="") as file:
        rows = [
            Row(**{field.name: kinds[str(field.type)](item[field.name]) for field in fields(Row)})
            for item in csv.DictReader(file)
        ]
    return {row.key: row for row in rows}


def write(path: Path, rows: Iterable[Row]) -> None:
    """Write all rows, in order, with their ratios."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*(field.name for field in fields(Row)), "ratio"])
        for row in sorted(rows, key=lambda row: row.key):
            writer.writerow([*astuple(row), round(row.ratio, 2)])
