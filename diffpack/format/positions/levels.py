"""Words of a span in classes of their level: that of their row, plus that of their column, less their exponent.

A fine-tune moves some rows of a matrix much and others little, and in the base's own numbers it moves small weights by
more steps than large ones. Rows and columns therefore have a level each, which the chunk stores, and the reference's
exponent counts `slope` times; words of like level are alike, and are coded together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from diffpack.errors import CorruptFileError
from diffpack.format.positions import grouped
from diffpack.format.positions.gaps import Positions
from diffpack.format.streams import Numbers
from diffpack.format.values.grid import OFFSETS
from diffpack.tensors.dtypes import DType

Levels = npt.NDArray[np.int8]
Exponents = npt.NDArray[np.uint16]

NONE: Levels = np.empty(0, np.int8)
"""No levels stored: all are 0."""


def row_width(dtype: DType, shape: tuple[int, ...]) -> int:
    """Give the words of a row: of the last dimension, or the whole tensor if that has none or is not whole words."""
    words = dtype.words(shape)
    rows = prod(shape[:-1]) if len(shape) > 1 else 1
    return words // rows if rows and words % rows == 0 else words


@dataclass(frozen=True)
class Geometry:
    """Where rows and columns lie in a span: for each record its part of the span, in words of the record.

    `columned` tells which records have columns: those of two dimensions or more.
    """

    starts: npt.NDArray[np.int64]
    stops: npt.NDArray[np.int64]
    widths: npt.NDArray[np.int64]
    columned: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, parts: Sequence[tuple[DType, tuple[int, ...], int, int]]) -> Geometry:
        """Make it of (dtype, shape, start, stop) for each record with words in the span, in order."""
        widths = [row_width(dtype, shape) for dtype, shape, _, _ in parts]
        several = [len(shape) > 1 for _, shape, _, _ in parts]
        starts, stops = (np.array([part[at] for part in parts], np.int64) for at in (2, 3))
        return cls(starts, stops, np.array(widths, np.int64), np.array(several, np.bool_))

    @cached_property
    def _rows(self) -> npt.NDArray[np.int64]:
        """How many rows each record has in the span; a row that is cut counts."""
        result: npt.NDArray[np.int64] = (self.stops - 1) // self.widths - self.starts // self.widths + 1
        return result

    @property
    def rows(self) -> int:
        """How many rows the span has."""
        return int(self._rows.sum())

    @cached_property
    def row_words(self) -> npt.NDArray[np.int64]:
        """How many words each row has in the span."""
        words = np.repeat(self.widths, self._rows)
        last = np.cumsum(self._rows) - 1
        first = last - self._rows + 1
        words[first] -= self.starts % self.widths
        words[last] -= -self.stops % self.widths
        return words

    @property
    def words(self) -> int:
        """How many words the span has."""
        return int((self.stops - self.starts).sum())

    @property
    def columns(self) -> int:
        """How many column levels the span has, if it has any: the columns of each record of two dimensions."""
        return int(self.widths[self.columned].sum())

    def columned_parts(self) -> Iterator[tuple[int, int, int, int]]:
        """Give (first word in the span, start, stop, width) of each record that has columns."""
        first = 0
        rows = zip(*(item.tolist() for item in (self.starts, self.stops, self.widths, self.columned)), strict=True)
        for start, stop, width, columned in rows:
            if columned:
                yield first, start, stop, width
            first += stop - start


@dataclass(frozen=True)
class Plan:
    """The levels of a span: of its rows, of its columns (both may be `NONE`), and how much an exponent counts."""

    rows: Levels = field(default_factory=lambda: NONE)
    columns: Levels = field(default_factory=lambda: NONE)
    slope: int = 0

    def keys(self, geometry: Geometry, exponents: Exponents | None) -> npt.NDArray[np.int32] | None:
        """Give the level of each word, None if all are 0."""
        keys: npt.NDArray[np.int32] | None = None
        if self.rows.size:
            keys = np.repeat(self.rows.astype(np.int32), geometry.row_words)
        if self.columns.size:
            keys = np.zeros(geometry.words, np.int32) if keys is None else keys
            taken = 0
            for first, start, stop, width in geometry.columned_parts():
                own = self.columns[taken : taken + width].astype(np.int32)
                phase = start % width
                repeated = np.tile(own, (phase + stop - start) // width + 1)
                keys[first : first + stop - start] += repeated[phase : phase + stop - start]
                taken += width
        if self.slope:
            assert exponents is not None
            raised = exponents.astype(np.int32) * np.int32(-self.slope)
            keys = raised if keys is None else keys + raised
        return keys

    def members(self, geometry: Geometry, exponents: Exponents | None) -> list[Positions]:
        """Give the words of each class, as sorted positions in the span, from the lowest level up."""
        keys = self.keys(geometry, exponents)
        return [np.arange(geometry.words)] if keys is None else grouped.members(keys)


def encode(
    plan: Plan, classes: Sequence[Positions], numbers: Numbers, offsets: Sequence[Sequence[int]] | None = None
) -> list[Numbers]:
    """Give the streams of a span: head, rows, columns, offsets (for grid values: three a class), then the classes."""
    kinds, streams = grouped.encode(classes, numbers)
    first = [np.array([plan.slope, *kinds], np.uint8), plan.rows, plan.columns]
    if offsets is not None:
        first.append(np.array(offsets, np.int8).reshape(-1))
    return first + streams


@dataclass(frozen=True)
class Stored:
    """The streams of a span, told apart."""

    plan: Plan
    kinds: list[int]
    offsets: Levels | None
    streams: list[Numbers]

    def class_offsets(self, index: int) -> Levels:
        """Give the offsets of a class of grid values."""
        assert self.offsets is not None
        return self.offsets[OFFSETS * index : OFFSETS * (index + 1)]

    def numbers(self, geometry: Geometry, exponents: Exponents | None, where: str) -> Iterator[
        tuple[int, Positions, Numbers]
    ]:  # fmt: skip
        """Give the class, positions and numbers of each class that changes. Raises `CorruptFileError`."""
        classes = self.plan.members(geometry, exponents)
        for index, found in enumerate(grouped.decode(self.kinds, self.streams, classes, where)):
            if found is not None:
                yield index, *found


def parse(streams: list[Numbers], geometry: Geometry, dtype: np.dtype[Any], gridded: bool, where: str) -> Stored:
    """Tell the streams of a span apart and check all that needs no base; their numbers are of `dtype`.

    Raises `CorruptFileError` (R2, R4, K2).
    """
    fixed = 4 if gridded else 3
    if len(streams) < fixed or streams[0].dtype != np.uint8 or not streams[0].size:
        raise CorruptFileError(f"{where}: a span of levels without its first streams", "R2")
    if streams[0].size - 1 > grouped.most(geometry.words):
        raise CorruptFileError(f"{where}: more classes than its words can have", "K2")
    slope, *kinds = streams[0].tolist()
    rows, columns = streams[1], streams[2]
    counts = ((rows, geometry.rows), (columns, geometry.columns))
    if any(item.dtype != np.int8 or item.size not in (0, count) for item, count in counts):
        raise CorruptFileError(f"{where}: not one level for each row, or for each column", "R2")
    offsets = streams[3] if gridded else None
    if offsets is not None and (offsets.dtype != np.int8 or offsets.size != OFFSETS * len(kinds)):
        raise CorruptFileError(f"{where}: not {OFFSETS} offsets for each class", "R4")
    grouped.check(kinds, streams[fixed:], dtype, where)
    return Stored(Plan(rows, columns, slope), kinds, offsets, streams[fixed:])
