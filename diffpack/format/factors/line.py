"""The factor line: the numbers of a group's factors as one run, and what the manifest must say of it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from diffpack.errors import CorruptFileError
from diffpack.format import limits
from diffpack.format.manifest import Group, MatrixTable
from diffpack.format.positions.geometry import Geometry
from diffpack.format.values.exact import EXACT
from diffpack.format.values.floats import FLOATS
from diffpack.format.values.grid import GRID
from diffpack.tensors.dtypes import CONVERTIBLE, DTYPES

INT = "int"
"""Factors of whole numbers; others are those of `FLOATS`."""
_ANY = DTYPES["U8"]  # a geometry counts words, and a number is one


@dataclass(frozen=True, slots=True)
class FactorShape:
    """One factor: components are rows of it, the rows (left) or columns (right) of its matrix are its columns."""

    rank: int
    width: int

    @property
    def numbers(self) -> int:
        """How many numbers it has."""
        return self.rank * self.width


class FactorLine:
    """Where the factors of a group's records lie: of each record, of each of its matrices, left, then right.

    `records[i]` and `records[i + 1]` are the first and the last but one of the factors of record i.
    """

    def __init__(self, matrices: Sequence[MatrixTable]) -> None:
        self.shapes: list[FactorShape] = []
        self.records = [0]
        self.components = [0]
        for rows, columns, ranks in matrices:
            for rank in ranks:
                self.shapes += [FactorShape(rank, rows), FactorShape(rank, columns)]
            self.records.append(len(self.shapes))
            self.components.append(self.components[-1] + sum(ranks))
        self.starts = list(accumulate((shape.numbers for shape in self.shapes), initial=0))

    @property
    def length(self) -> int:
        """How many numbers it has."""
        return self.starts[-1]

    def parts(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """The factors with numbers in a part of the line, and which of their numbers these are."""
        at = bisect_right(self.starts, start) - 1
        while start < stop:
            first, end = self.starts[at], min(stop, self.starts[at + 1])
            if end > start:
                yield at, start - first, end - first
            start, at = end, at + 1

    def geometry(self, start: int, stop: int) -> Geometry:
        """Rows and columns in a span of it, as those of records of two dimensions."""
        parts = list(self.parts(start, stop))
        return Geometry.of(
            [(_ANY, (self.shapes[at].rank, self.shapes[at].width), first, last) for at, first, last in parts]
        )


def check_table(group: Group, where: str) -> None:
    """Check what the manifest says of a group's factors, if it has any. Raises `CorruptFileError` (U1, U2, F8)."""
    table = group.factors
    if table is None:
        return
    if not (group.value_coding_id == GRID.id or _predicts(group)) or table.values not in (INT, *FLOATS):
        beside = f"{group.value_coding_id} values of {group.dtype} in {group.position_coding_id}"
        raise CorruptFileError(f"{where}: {table.values} factors beside {beside}", "U1")
    if len(table.matrices) != len(group.names):
        raise CorruptFileError(f"{where}: not the matrices of each record", "U2")
    for name, shape, (rows, columns, ranks) in zip(group.names, group.shapes, table.matrices, strict=True):
        fitting = rows >= 1 and columns >= 1 and rows * columns * len(ranks) == group.tensor_dtype.words(shape)
        if not ranks or not fitting or not 0 <= min(ranks) <= max(ranks) <= limits.RANK:
            raise CorruptFileError(f"{where}: {name!r} is not made of the matrices it is said to be", "U2")
    length = sum((rows + columns) * sum(ranks) for rows, columns, ranks in table.matrices)
    ends = (0, *table.ends)
    if ends[-1] != length or any(a >= b for a, b in pairwise(ends)):
        raise CorruptFileError(f"{where}: the spans of its factors do not cut their {length} numbers", "U2")
    if length > limits.WORDS or any(b - a > limits.CLASSES_SPAN_WORDS for a, b in pairwise(ends)):
        raise CorruptFileError(f"{where}: factors, or a span of them, over the limit", "F8")


def _predicts(group: Group) -> bool:
    """Whether factors may predict what exact values are steps from: of floats with a base, coded in levels."""
    coding = group.value_coding_id, group.position_coding_id
    return coding == (EXACT.id, "levels") and group.base_dtype is not None and group.dtype in CONVERTIBLE
