"""Words of a span in classes of their level: that of their row, plus that of their column, less their exponent.

A fine-tune moves some rows of a matrix much and others little, and in the base's own numbers it moves small weights by
more steps than large ones. Rows and columns therefore have a level each, which the chunk stores, and the reference's
exponent counts `slope` times; words of like level are alike, and are coded together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import Any

import numpy as np
import numpy.typing as npt

from diffpack.errors import CorruptFileError
from diffpack.format.manifest import Group
from diffpack.format.positions import grouped
from diffpack.format.positions.coding import CONTEXTS, Decoded, PositionCoding, Span
from diffpack.format.positions.geometry import Geometry
from diffpack.format.positions.split import Change, Split, classes_of
from diffpack.format.streams import Numbers
from diffpack.format.values import VALUE_CODINGS, ValueCoding

Levels = npt.NDArray[np.int8]
Exponents = npt.NDArray[Any]
"""Of each word: u8, or u16 where they take more bits."""

NONE: Levels = np.empty(0, np.int8)
"""No levels stored: all are 0."""
_COUNTED_FROM = 1024
"""Words a record from which counting them by rows and columns takes less time than looking at each."""
_MOST_IN_INT16 = 32767 - 256  # what an exponent may count, with room for the levels of row and column


@dataclass(frozen=True)
class Plan:
    """The levels of a span: of its rows, of its columns (both may be `NONE`), and how much an exponent counts."""

    rows: Levels = field(default_factory=lambda: NONE)
    columns: Levels = field(default_factory=lambda: NONE)
    slope: int = 0

    def keys(self, geometry: Geometry, exponents: Exponents | None) -> npt.NDArray[Any]:
        """The level of each word (signed integers)."""
        raised = None if exponents is None or not self.slope else self._raised(exponents)
        dtype = np.dtype(np.int16) if raised is None else raised.dtype
        keys: npt.NDArray[Any] = np.zeros(geometry.words, dtype)
        if self.rows.size:
            keys += np.repeat(self.rows, geometry.row_words)
        taken = 0
        for first, start, stop, width in geometry.columned_parts() if self.columns.size else ():
            own = self.columns[taken : taken + width]
            phase = start % width
            repeated = np.tile(own, (phase + stop - start) // width + 1)
            keys[first : first + stop - start] += repeated[phase : phase + stop - start]
            taken += width
        if raised is not None:
            keys -= raised
        return keys

    def class_sizes(self, geometry: Geometry) -> list[int]:
        """How many words each class has, counted by rows and columns without looking at words; no exponent counts."""
        if not (self.rows.size or self.columns.size):
            return [geometry.words]
        return classes_of(geometry.level_counts(self.rows, self.columns))[2]

    def _raised(self, exponents: Exponents) -> npt.NDArray[Any]:
        """How much each exponent counts, in integers with room for the levels of row and column."""
        dtype = np.int16 if self.slope * np.iinfo(exponents.dtype).max <= _MOST_IN_INT16 else np.int32
        return np.multiply(exponents, self.slope, dtype=dtype)

    def split(self, geometry: Geometry, exponents: Exponents | None) -> Split:
        """The classes of the words."""
        if self.slope and not (self.rows.size or self.columns.size):
            assert exponents is not None
            return Split.by(~exponents)  # in the order of the levels, and a byte a word in most dtypes
        if self.columns.size or self.slope:
            return Split.by(self.keys(geometry, exponents))
        if self.rows.size:
            return Split.by(self.rows.astype(np.int16), geometry.row_words)
        return Split.whole(geometry.words)


def encode(plan: Plan, split: Split, numbers: Numbers, offsets: Sequence[Sequence[int]] | None = None) -> list[Numbers]:
    """The streams of a span, `numbers` being those of all its words, in the order of the line."""
    return streams(plan, grouped.encode_all(split, numbers), offsets)


def streams(
    plan: Plan, coded: tuple[Sequence[int], Sequence[Numbers]], offsets: Sequence[Sequence[int]] | None = None
) -> list[Numbers]:
    """The streams of a span: head, rows, columns, offsets (for grid values: three a class), then the classes.

    `coded` is how the classes are stored, and their streams, as `grouped` makes them.
    """
    kinds, parts = coded
    first = [np.array([plan.slope, *kinds], np.uint8), plan.rows, plan.columns]
    if offsets is not None:
        first.append(np.array(offsets, np.int8).reshape(-1))
    return [*first, *parts]


@dataclass(frozen=True)
class Stored:
    """The streams of a span, told apart."""

    plan: Plan
    kinds: list[int]
    offsets: Levels | None
    streams: list[Numbers]

    @property
    def still(self) -> bool:
        """Whether there is one class, for want of levels, and it changes nothing: as the grid beside factors may."""
        plan = self.plan
        return self.kinds == [grouped.UNCHANGED] and not (plan.rows.size or plan.columns.size or plan.slope)

    def class_offsets(self, index: int) -> Levels:
        """The offsets of a class of values that have them."""
        assert self.offsets is not None
        each = self.offsets.size // len(self.kinds)
        return self.offsets[each * index : each * (index + 1)]

    def split(self, geometry: Geometry, exponents: Exponents | None, where: str) -> tuple[Split, list[Change]]:
        """The classes of the span's words, and what changes in each of those that do. Raises `CorruptFileError`."""
        split = self.plan.split(geometry, exponents)
        return split, list(grouped.decode(self.kinds, self.streams, split, where))


def parse(streams: list[Numbers], geometry: Geometry, numbers: np.dtype[Any], each: int, where: str) -> Stored:
    """Tell the streams of a span apart and check all that needs no base.

    Its numbers are of the dtype `numbers`, and each class has `each` offsets.

    Raises `CorruptFileError` (R2, R4, K2).
    """
    fixed = 4 if each else 3
    if len(streams) < fixed or streams[0].dtype != np.uint8 or not streams[0].size:
        raise CorruptFileError(f"{where}: a span of levels without its first streams", "R2")
    if streams[0].size - 1 > grouped.most(geometry.words):
        raise CorruptFileError(f"{where}: more classes than its words can have", "K2")
    slope, *kinds = streams[0].tolist()
    rows, columns = streams[1], streams[2]
    counts = ((rows, geometry.rows), (columns, geometry.columns))
    if any(item.dtype != np.int8 or item.size not in (0, count) for item, count in counts):
        raise CorruptFileError(f"{where}: not one level for each row, or for each column", "R2")
    offsets = streams[3] if each else None
    if offsets is not None and (offsets.dtype != np.int8 or offsets.size != each * len(kinds)):
        raise CorruptFileError(f"{where}: not {each} offsets for each class", "R4")
    grouped.check(kinds, streams[fixed:], numbers, where)
    return Stored(Plan(rows, columns, slope), kinds, offsets, streams[fixed:])


class LevelClasses(PositionCoding):
    """What the classes are made of (head, levels of rows and of columns, offsets), then the streams of the classes."""

    id = "levels"
    since = 1
    rule = "R1"
    checked_apart = True
    offered = True
    holds_offsets = True
    context_streams = 3

    def needs_base(self, group: Group) -> bool:
        """Say whether exponents of the base may count: where values are exact."""
        return VALUE_CODINGS[group.value_coding_id].exact

    def counted(self, value_coding: ValueCoding) -> bool:
        """Say whether exponents may count: then only the base tells how many words change."""
        return value_coding.exact

    def contexts(self, streams: list[Numbers], where: str) -> Sequence[str]:
        """Say what the classes of a chunk were made of. Raises `CorruptFileError` (R2)."""
        if len(streams) != self.context_streams:
            raise CorruptFileError(f"{where}: too few streams for levels", "R2")
        head, rows, columns = streams
        return tuple(compress(CONTEXTS, (rows.size > 0, columns.size > 0, bool(head[:1].any()))))

    def check_group(self, group: Group, where: str) -> None:
        """Check values, counts and the size of spans. Raises `CorruptFileError` (R1, F8)."""
        value_coding = VALUE_CODINGS[group.value_coding_id]
        if not value_coding.exact and not value_coding.class_offsets:
            raise CorruptFileError(f"{where}: {value_coding.id} values in levels", self.rule)
        self.check_counts(group, where)
        grouped.check_spans(group, self.id, where)

    def check_without_base(self, streams: list[Numbers], span: Span) -> bool:
        """Check the streams; where no exponent counts the span can be decoded.

        A large span is not: its classes are counted, and what is stored of them compared with that, since a small chunk
        may speak of very many words. Raises `CorruptFileError` (R, K, V2, P1).
        """
        geometry = Geometry.of_span(span)
        stored = self._stored(streams, geometry, span)
        if stored.plan.slope or (span.line.value_coding.class_offsets and stored.still):
            return False
        if span.words <= _COUNTED_FROM * geometry.records:
            return True
        for _ in grouped.checked(stored.kinds, stored.streams, stored.plan.class_sizes(geometry), span.where):
            pass
        return False

    def decode(self, streams: list[Numbers], span: Span) -> Decoded:
        """The steps of every word, or of values with offsets the positions that change and their units."""
        geometry = Geometry.of_span(span)
        stored = self._stored(streams, geometry, span)
        value_coding, dtype = span.line.value_coding, span.line.dtype
        if value_coding.class_offsets and stored.still:
            return np.empty(0, np.int64), np.empty(0, np.int32)
        own = span.exponents() if stored.plan.slope else None
        split, changes = stored.split(geometry, own, span.where)
        if not value_coding.class_offsets:
            steps: Numbers = np.zeros(span.words, dtype.step)
            split.fill(steps, changes)
            return None, steps
        units: Numbers = np.zeros(span.words, np.int32)
        offsets = stored.class_offsets
        split.fill(units, [(at, ranks, value_coding.in_units(part, offsets(at))) for at, ranks, part in changes])
        places = np.flatnonzero(units != 0)
        return places + span.start, units[places]

    def _stored(self, streams: list[Numbers], geometry: Geometry, span: Span) -> Stored:
        """Tell the streams of a span apart, and check them as far as that needs no base."""
        line = span.line
        value_coding = line.value_coding
        stored = parse(streams, geometry, value_coding.stream(line.dtype), value_coding.class_offsets, span.where)
        conditioned = value_coding.exact and line.group.base_dtype is not None and line.dtype.arithmetic
        if stored.plan.slope and not conditioned:
            raise CorruptFileError(f"{span.where}: exponents count where they cannot", "R3")
        return stored


LEVELS = LevelClasses()
