"""The rows of the trainer's table: appended one by one, read, grouped and named."""

from __future__ import annotations

import csv
import math
import statistics
from collections import defaultdict
from dataclasses import astuple, dataclass, fields
from pathlib import Path

Key = tuple[str, str, str]
"""Method, variant, density, as the rows spell them."""
Groups = dict[Key, list[dict[str, str]]]
"""One task's rows: one a seed."""


@dataclass(frozen=True)
class Row:
    """One measured row. Bytes are of the stored file; shares are of the base's tensors; memory above the model."""

    task: str
    method: str
    variant: str
    density: str
    seed: int
    accuracy: float
    f1: float
    mcc: float
    cpu_seconds: float
    peak_memory_mb: float | str
    trained: int
    bytes: int
    bytes_without_head: int
    share_pct: float
    share_without_head_pct: float
    epochs: int
    batch: int
    lr: float
    max_length: int
    precision: str
    dropout: float
    machine: str


def append(table: Path, row: Row) -> None:
    """Write a row behind the others."""
    fresh = not table.exists()
    table.parent.mkdir(parents=True, exist_ok=True)
    with table.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if fresh:
            writer.writerow([field.name for field in fields(Row)])
        writer.writerow(astuple(row))


def _cells(table: Path) -> list[dict[str, str]]:
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


def keys(table: Path) -> set[tuple[str, ...]]:
    """Give what is measured: each row's task, method, variant, density, seed."""
    names = [field.name for field in fields(Row)][:5]
    return {tuple(row[name] for name in names) for row in _cells(table)} if table.exists() else set()


def read(table: Path) -> dict[str, Groups]:
    """Group the rows: task -> (method, variant, density) -> one row a seed."""
    found: dict[str, Groups] = defaultdict(lambda: defaultdict(list))
    for row in _cells(table):
        found[row["task"]][row["method"], row["variant"], row["density"]].append(row)
    return found


def percent(key: Key) -> str:
    """Give a density as % ("" where the method has none)."""
    return f"{100 * float(key[2]):g} %" if float(key[2]) else ""


def named(key: Key) -> str:
    """Give a method's name with its variant and density."""
    method, variant, _ = key
    return " ".join(part for part in (method, f"({variant})" if variant else "", percent(key)) if part)


def mean(rows: list[dict[str, str]], column: str) -> float:
    """Give the mean over the rows that have the number (nan if none has)."""
    known = [float(row[column]) for row in rows if row[column]]
    return statistics.fmean(known) if known else math.nan
