"""Rows in a CSV file: appended as they are finished, so that a run can be interrupted and taken up again."""

from __future__ import annotations

import csv
from dataclasses import astuple, dataclass, fields
from pathlib import Path

BOUND = "entropy bound"
"""The tool of the row that no tool made: see `entropy`."""


@dataclass(frozen=True)
class Row:
    """One tool on one pair. `size` is -1 and `exact` "-" where there is no diff; `note` says why."""

    pair: str
    tool: str
    version: str
    size: int  # bytes
    tensor_bytes: int  # of the tuned model
    words: int
    changed: int
    encode_s: float
    decode_s: float
    exact: str  # yes, no, -
    note: str
    machine: str

    @property
    def percent(self) -> float:
        """Size as a percentage of the tuned tensors' bytes."""
        return 100 * self.size / self.tensor_bytes

    @property
    def bits(self) -> float:
        """Bits a changed word."""
        return 8 * self.size / max(self.changed, 1)


NAMES = [field.name for field in fields(Row)]
SHOWN = ["percent", "bits"]
"""Columns made from the others, for whoever reads the file without this code."""


def read(path: Path) -> dict[tuple[str, str], Row]:
    """Give the last row of each pair and tool."""
    found: dict[tuple[str, str], Row] = {}
    if path.exists():
        with path.open(newline="") as file:
            for item in csv.DictReader(file):
                kinds = {"int": int, "float": float, "str": str}
                row = Row(**{field.name: kinds[str(field.type)](item[field.name]) for field in fields(Row)})
                found[row.pair, row.tool] = row
    return found


def append(path: Path, row: Row) -> None:
    """Add a row at the end."""
    new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(NAMES + SHOWN)
        writer.writerow(cells(row))


def rewrite(path: Path, rows: list[Row]) -> None:
    """Replace the file by these rows, dropping those measured again since."""
    part = path.with_name(path.name + ".part")
    with part.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(NAMES + SHOWN)
        writer.writerows(cells(row) for row in rows)
    part.replace(path)


def cells(row: Row) -> list[object]:
    """Give a row's columns; those made from others are empty where there is no size."""
    shown: list[object] = [round(row.percent, 4), round(row.bits, 4)] if row.size >= 0 else ["", ""]
    return [*astuple(row), *shown]
