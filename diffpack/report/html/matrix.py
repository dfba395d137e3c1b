"""Overlap between tasks as a table to look at: all pairs of a few, of many the nearest to each."""

from __future__ import annotations

from dataclasses import dataclass

from diffpack.report.contents.overlap import TaskOverlap
from diffpack.report.html.scale import Scale

MOST_TASKS = 48
"""Tasks of which all pairs are shown: more columns are no longer read, and pages grow with their square."""


@dataclass(frozen=True)
class Pair:
    """Two tasks: entries both change, of those any of the two changes (`jaccard`), and how many chance would give.

    `chance` is what two random choices of as many entries share on average: changed of one x changed of the other /
    entries of the base.
    """

    other: str
    both: int
    jaccard: float
    chance: int
    level: int | None


@dataclass(frozen=True)
class Matrix:
    """`rows`: a task, its changed entries, and its pairs with all tasks in order (None with itself).

    `nearest` instead, of more than `MOST_TASKS`: a task, its changed entries, and the pair that shares most.
    """

    rows: tuple[tuple[str, int, tuple[Pair | None, ...]], ...]
    nearest: tuple[tuple[str, int, Pair], ...]
    missing: tuple[tuple[str, str], ...]
    scale: Scale


def matrix(found: TaskOverlap, base_entries: int) -> Matrix:
    """Lay out the overlap of diffs of one base that has so many entries."""
    count = len(found.names)
    alike = [[found.jaccard(a, b) if a != b else 0.0 for b in range(count)] for a in range(count)]
    scale = Scale.of(number for row in alike for number in row)

    def pair(a: int, b: int) -> Pair:
        chance = round(found.both[a][a] * found.both[b][b] / base_entries) if base_entries else 0
        return Pair(found.names[b], found.both[a][b], alike[a][b], chance, scale.level(alike[a][b]))

    def changed(a: int) -> int:
        return found.both[a][a]

    if count <= MOST_TASKS:
        rows = [
            (name, changed(a), tuple(None if a == b else pair(a, b) for b in range(count)))
            for a, name in enumerate(found.names)
        ]
        return Matrix(tuple(rows), (), found.missing, scale)
    near = [max((b for b in range(count) if b != a), key=lambda b: alike[a][b]) for a in range(count)]
    nearest = tuple((name, changed(a), pair(a, near[a])) for a, name in enumerate(found.names))
    return Matrix((), nearest, found.missing, scale)
