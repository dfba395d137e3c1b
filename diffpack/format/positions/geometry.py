"""Where the rows and columns of tensors lie in a span."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np
import numpy.typing as npt

from diffpack.format.positions.coding import Span
from diffpack.tensors.dtypes import DType, Positions

_LEVELS = 1 << 7
"""What is added to a level (int8), so that none is negative."""


def row_width(dtype: DType, shape: tuple[int, ...]) -> int:
    """The words of a row: of the last dimension, or the whole tensor if that has none or is not whole words."""
    words = dtype.words(shape)
    rows = prod(shape[:-1]) if len(shape) > 1 else 1
    return words // rows if rows and words % rows == 0 else words


def remainders(places: Positions, width: int) -> Positions:
    """The places modulo a width (of numpy's own operations the faster ones)."""
    return places - places // width * width


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

    @classmethod
    def of_span(cls, span: Span) -> Geometry:
        """Make it of the records with words in a span of a line."""
        dtype, shapes = span.line.dtype, span.line.group.shapes
        return cls.of([(dtype, shapes[record], first, last) for record, first, last in span.parts()])

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

    def equal_rows(self) -> Iterator[tuple[int, int, int, int]]:
        """Neighbouring rows of like length: the first word and the first row, how many rows, and words in each."""
        lengths = self.row_words
        ends = [*(np.flatnonzero(np.diff(lengths)) + 1).tolist(), lengths.size]
        word = row = 0
        for end, width in zip(ends, lengths[[end - 1 for end in ends]].tolist(), strict=True):
            yield word, row, end - row, width
            word, row = word + (end - row) * width, end

    def rows_of(self, places: Positions) -> Positions:
        """The row of each of some words (sorted), counted in the span."""
        rows = np.empty(places.size, np.int64)
        for word, row, count, width in self.equal_rows():
            low, high = np.searchsorted(places, [word, word + count * width])
            rows[low:high] = (places[low:high] - word) // width + row
        return rows

    def columns_of(self, places: Positions) -> Positions:
        """The column of each of some words (sorted), counted in the span; -1 for those of records without columns."""
        columns = np.full(places.size, -1)
        taken = 0
        for first, start, stop, width in self.columned_parts():
            low, high = np.searchsorted(places, [first, first + stop - start])
            columns[low:high] = remainders(places[low:high] + (start - first), width) + taken
            taken += width
        return columns

    @property
    def records(self) -> int:
        """How many records have words in the span."""
        return self.starts.size

    def level_counts(self, rows: npt.NDArray[np.int8], columns: npt.NDArray[np.int8]) -> npt.NDArray[np.int64]:
        """How many words have each sum of the levels of their row and of their column, from -256 to 254.

        Both may be empty: then all of them are 0. Takes time for each row and column, not for each word.
        """
        own_rows = rows if rows.size else np.zeros(self.rows, np.int8) if columns.size else rows
        if not columns.size:
            counted = np.bincount(own_rows.astype(np.int64) + _LEVELS, self.row_words, 2 * _LEVELS)
            return np.append(
                np.zeros(_LEVELS, np.int64), np.append(counted.astype(np.int64), np.zeros(_LEVELS, np.int64))
            )
        found = np.zeros(4 * _LEVELS, np.int64)
        row = column = 0
        parts = zip(
            *(item.tolist() for item in (self.starts, self.stops, self.widths, self.columned, self._rows)), strict=True
        )
        for start, stop, width, columned, count in parts:
            own = own_rows[row : row + count].astype(np.int64) + _LEVELS
            row += count
            if not columned:
                found[int(own[0]) + _LEVELS] += stop - start
                continue
            levels = columns[column : column + width].astype(np.int64) + _LEVELS
            column += width
            first, last = start % width, (stop - 1) % width + 1
            if count == 1:
                found[int(own[0]) :][: 2 * _LEVELS] += np.bincount(levels[first:last], minlength=2 * _LEVELS)
                continue
            found[int(own[0]) :][: 2 * _LEVELS] += np.bincount(levels[first:], minlength=2 * _LEVELS)
            found[int(own[-1]) :][: 2 * _LEVELS] += np.bincount(levels[:last], minlength=2 * _LEVELS)
            if count > 2:
                inner, across = (
                    np.bincount(own[1:-1], minlength=2 * _LEVELS),
                    np.bincount(levels, minlength=2 * _LEVELS),
                )
                found[: 4 * _LEVELS - 1] += np.convolve(inner, across)
        return found

    @property
    def words(self) -> int:
        """How many words the span has."""
        return int((self.stops - self.starts).sum())

    @property
    def columns(self) -> int:
        """How many column levels the span has, if it has any: the columns of each record of two dimensions."""
        return int(self.widths[self.columned].sum())

    def columned_parts(self) -> Iterator[tuple[int, int, int, int]]:
        """First word in the span, start, stop and width of each record that has columns."""
        first = 0
        rows = zip(*(item.tolist() for item in (self.starts, self.stops, self.widths, self.columned)), strict=True)
        for start, stop, width, columned in rows:
            if columned:
                yield first, start, stop, width
            first += stop - start
