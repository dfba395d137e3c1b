"""How much rows and columns move: the levels of a span, chosen where they cost less than they save.

Levels are half octaves of the mean size of a row's or column's differences (in a narrow dtype, where few entries move
and those of large weights move far, the mean tells more than its square does). What a choice costs is estimated
from the lengths, in bits, of the numbers to be coded: their entropy given the level.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from diffpack.format.positions.geometry import Geometry, remainders
from diffpack.format.positions.levels import NONE, Exponents, Levels, Plan
from diffpack.format.positions.split import CLASS_WORDS
from diffpack.tensors.dtypes import Positions

STEPS_AN_OCTAVE = 2
"""Levels an octave of magnitude: finer ones gain under 0.1 % and make classes smaller (MiniLM pair)."""
STILL = -128
"""The level of a row or column that does not change."""
_FAINT_COLUMN = -16  # a column below a 256th of the mean is not told from others
_SAMPLE = 1 << 18  # words an estimate looks at
_LENGTHS = 66  # lengths in bits of a number of up to 64: 0 to 64, and 65 for the smallest one, 2^64 in magnitude
_LEVEL_COST, _TABLE_COST = 0.05, 300.0  # bits a level, and a stream of them, cost beside their entropy
_CLASS_COST = 1000.0  # bits the streams of a class cost beside their numbers

_MOST_CELLS = 1 << 20  # codes that are counted in a table; of more of them those that occur are found by sorting

Sizes = npt.NDArray[np.float32]
Lengths = npt.NDArray[np.int64]


def row_levels(sizes: Sizes, geometry: Geometry, lowest: int = STILL, places: Positions | None = None) -> Levels:
    """The level of each row, from the sizes of the words' changes (float32, 0 or more).

    With `places` they are those of some words (sorted), and all others are 0.
    """
    if places is not None:
        sums = np.bincount(geometry.rows_of(places), sizes, minlength=geometry.rows)
    else:
        parts = [np.empty(0, np.float64)]
        for word, _, rows, width in geometry.equal_rows():
            parts.append(sizes[word : word + rows * width].reshape(rows, width).sum(axis=1, dtype=np.float64))
        sums = np.concatenate(parts)
    return _half_octaves(sums / geometry.row_words, lowest)


def column_levels(sizes: Sizes, geometry: Geometry) -> Levels:
    """The level of each column, relative to its record's."""
    levels = [NONE]
    for means in _column_means(sizes, geometry, None):
        mean = means.mean()
        levels.append(_half_octaves(means / mean if mean else means, _FAINT_COLUMN if mean else 0))
    return np.concatenate(levels)


def still_columns(sizes: Sizes, geometry: Geometry, places: Positions | None = None) -> Levels:
    """Tell columns that change (0) from those that do not; `places` as for `row_levels`."""
    levels = (np.where(means > 0, 0, STILL).astype(np.int8) for means in _column_means(sizes, geometry, places))
    return np.concatenate([NONE, *levels])


def _column_means(sizes: Sizes, geometry: Geometry, places: Positions | None) -> Iterator[npt.NDArray[np.float64]]:
    """The mean size in each column of each record of two dimensions; 1 where no row is whole."""
    for first, start, stop, width in geometry.columned_parts():
        begin, end = first + -start % width, first + stop - start - stop % width
        if end <= begin:
            yield np.ones(width)
        elif places is None:
            yield sizes[begin:end].reshape(-1, width).mean(axis=0, dtype=np.float64)
        else:
            low, high = np.searchsorted(places, [begin, end])
            sums = np.bincount(remainders(places[low:high] - begin, width), sizes[low:high], minlength=width)
            yield sums / ((end - begin) // width)


def _half_octaves(means: npt.NDArray[np.float64], lowest: int) -> Levels:
    with np.errstate(divide="ignore"):
        levels = np.rint(STEPS_AN_OCTAVE * np.log2(means))
    result: Levels = np.clip(levels, lowest, 127).astype(np.int8)
    return result


def cheapest(plans: list[Plan], geometry: Geometry, exponents: Exponents | None, lengths: Lengths) -> Plan:
    """The plan whose words and levels are estimated to take the fewest bits; of equal ones the first.

    `lengths` are those of the numbers of `sampled` words.
    """
    if len(plans) == 1:
        return plans[0]
    return plans[int(np.argmin(costs(plans, geometry, exponents, lengths)))]


def sampled(words: int) -> slice:
    """Which words of so many an estimate looks at."""
    return slice(None, None, max(1, words // _SAMPLE) | 1)  # odd, so that it does not keep to some columns


def bit_lengths(numbers: npt.NDArray[Any]) -> Lengths:
    """The lengths in bits of the magnitudes of numbers."""
    return np.minimum(np.frexp(numbers.astype(np.float32))[1], _LENGTHS - 1).astype(np.int64)


def costs(
    plans: Sequence[Plan], geometry: Geometry, exponents: Exponents | None, lengths: Lengths, share: float = 1.0
) -> list[float]:
    """Estimate the bits a span takes by each plan: the entropy of the lengths of its numbers, given their level.

    `lengths` are the `bit_lengths` of the numbers of its `sampled` words; the bits below the first one are the same for
    every plan. `share` is the part of a longer span the span is, which pays that part of what classes cost beside
    their numbers.
    """
    words, every = geometry.words, sampled(geometry.words).step
    longest = int(lengths.max(initial=0)) + 1
    cells = _Cells.of(plans, geometry, exponents, lengths)
    found = []
    for plan in plans:
        keys = cells.keys(plan)
        own = (keys - keys.min(initial=0)) * longest + cells.lengths
        counts = np.bincount(own, cells.counts, minlength=longest).astype(np.int64)
        counts = np.append(counts, np.zeros(-counts.size % longest, np.int64)).reshape(-1, longest)
        bits = _weighted_log(counts.sum(axis=1)) - _weighted_log(counts)
        held = np.count_nonzero(counts) - np.count_nonzero(counts.sum(axis=1))
        bits += held / (2 * np.log(2))  # a sample's entropy falls short by this (Miller 1955)
        classes = min(int(np.count_nonzero(counts[:, 1:].any(axis=1))), -(-words // CLASS_WORDS))
        tables = share * _CLASS_COST * classes + _levels_cost(plan.rows) + _levels_cost(plan.columns)
        found.append(float(every * bits) + tables)
    return found


@dataclass(frozen=True)
class _Cells:
    """Sampled words, counted by all that any of the plans tells them apart by, so that each plan only adds counts up.

    Of each cell: the length of its numbers, how many words, a row and a column like those of its words (-1 for words
    without), their exponent.
    """

    lengths: Lengths
    counts: npt.NDArray[np.int64]
    row: Positions
    column: Positions
    exponent: npt.NDArray[np.int64]

    @classmethod
    def of(cls, plans: Sequence[Plan], geometry: Geometry, exponents: Exponents | None, lengths: Lengths) -> _Cells:
        """Count the sampled words, whose numbers have these lengths."""
        which = sampled(geometry.words)
        places = np.arange(0, geometry.words, which.step)
        codes, size = lengths, int(lengths.max(initial=0)) + 1
        sizes, told = [size], []
        for levels, own in (
            (_distinct([plan.rows for plan in plans]), geometry.rows_of),
            (_distinct([plan.columns for plan in plans]), geometry.columns_of),
        ):
            first, labels = _alike(levels)
            if first.size > 1:
                codes = codes + labels[own(places)] * size
            told.append(first)
            sizes.append(first.size)
            size *= first.size
        values = np.zeros(1, np.int64)
        if exponents is not None and any(plan.slope for plan in plans):
            own_exponents = exponents[which]
            values = np.flatnonzero(np.bincount(own_exponents))
            codes = codes + np.searchsorted(values, np.arange(values[-1] + 1))[own_exponents] * size
            size *= values.size
        cells, counts = _counted(codes, size)
        length, row, column, exponent = np.unravel_index(cells, (*sizes, values.size), order="F")
        return cls(length.astype(np.int64), counts, told[0][row], told[1][column], values[exponent])

    def keys(self, plan: Plan) -> npt.NDArray[np.int64]:
        """The level of each cell by a plan."""
        keys = self.exponent * -plan.slope
        if plan.rows.size:
            keys += plan.rows[self.row]
        if plan.columns.size:
            keys += np.append(plan.columns, np.int8(0))[self.column]
        return keys


def _distinct(levels: Sequence[Levels]) -> list[Levels]:
    """The arrays of levels that are used, each once."""
    return list({id(own): own for own in levels if own.size}.values())


def _alike(levels: Sequence[Levels]) -> tuple[Positions, Positions]:
    """Rows, or columns, that no array of levels tells apart: the first of each kind, and the kind of each.

    Behind the last one stands what has no level, which is 0.
    """
    if not levels:
        return np.array([-1]), np.zeros(1, np.int64)
    codes = np.zeros(levels[0].size + 1, np.int64)
    for own in levels:
        codes = codes * 256 + np.append(own, np.int8(0))
    _, first, kinds = np.unique(codes, return_index=True, return_inverse=True)
    return first, kinds


def _counted(codes: npt.NDArray[np.int64], size: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Which codes (less than `size`) there are, and how often."""
    if size > _MOST_CELLS:
        return np.unique(codes, return_counts=True)
    counts = np.bincount(codes)
    cells = np.flatnonzero(counts)
    return cells, counts[cells]


def _levels_cost(levels: Levels) -> float:
    if not levels.size:
        return 0.0
    counts = np.bincount(levels.view(np.uint8))
    entropy = levels.size * np.log2(levels.size) - _weighted_log(counts)
    return float(entropy + _LEVEL_COST * levels.size + _TABLE_COST)


def _weighted_log(counts: npt.NDArray[np.int64]) -> float:
    held = counts[counts > 0].astype(np.float64)
    return float((held * np.log2(held)).sum())
