"""How much rows and columns move: the levels of a span, chosen where they cost less than they save.

Levels are half octaves of the mean size of a row's or column's differences (in a narrow dtype, where few entries move
and those of large weights move far, the mean tells more than its square does). What a choice costs is estimated
from the lengths, in bits, of the numbers to be coded: their entropy given the level.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from diffpack.format.positions.geometry import Geometry
from diffpack.format.positions.grouped import CLASS_WORDS
from diffpack.format.positions.levels import NONE, Exponents, Levels, Plan

STEPS_AN_OCTAVE = 2
"""Levels an octave of magnitude: finer ones gain under 0.1 % and make classes smaller (MiniLM pair)."""
STILL = -128
"""The level of a row or column that does not change."""
_FAINT_COLUMN = -16  # a column below a 256th of the mean is not told from others
_SAMPLE = 1 << 18  # words an estimate looks at
_LENGTHS = 66  # lengths in bits of a number of up to 64: 0 to 64, and 65 for the smallest one, 2^64 in magnitude
_LEVEL_COST, _TABLE_COST = 0.05, 300.0  # bits a level, and a stream of them, cost beside their entropy
_CLASS_COST = 1000.0  # bits the streams of a class cost beside their numbers

Sizes = npt.NDArray[np.float32]


def row_levels(sizes: Sizes, geometry: Geometry, lowest: int = STILL) -> Levels:
    """The level of each row, from the sizes of the words' changes (float32, 0 or more)."""
    starts = np.concatenate(([0], np.cumsum(geometry.row_words)[:-1]))
    sums = np.add.reduceat(sizes, starts, dtype=np.float64)
    return _half_octaves(sums / geometry.row_words, lowest)


def column_levels(sizes: Sizes, geometry: Geometry) -> Levels:
    """The level of each column, relative to its record's."""
    levels = [NONE]
    for means in _column_means(sizes, geometry):
        mean = means.mean()
        levels.append(_half_octaves(means / mean if mean else means, _FAINT_COLUMN if mean else 0))
    return np.concatenate(levels)


def still_columns(sizes: Sizes, geometry: Geometry) -> Levels:
    """Tell columns that change (0) from those that do not."""
    levels = (np.where(means > 0, 0, STILL).astype(np.int8) for means in _column_means(sizes, geometry))
    return np.concatenate([NONE, *levels])


def _column_means(sizes: Sizes, geometry: Geometry) -> Iterator[npt.NDArray[np.float64]]:
    """The mean size in each column of each record of two dimensions; 1 where no row is whole."""
    for first, start, stop, width in geometry.columned_parts():
        begin, end = first + -start % width, first + stop - start - stop % width
        if end > begin:
            yield sizes[begin:end].reshape(-1, width).mean(axis=0, dtype=np.float64)
        else:
            yield np.ones(width)


def _half_octaves(means: npt.NDArray[np.float64], lowest: int) -> Levels:
    with np.errstate(divide="ignore"):
        levels = np.rint(STEPS_AN_OCTAVE * np.log2(means))
    result: Levels = np.clip(levels, lowest, 127).astype(np.int8)
    return result


def cheapest(plans: list[Plan], geometry: Geometry, exponents: Exponents | None, sizes: Sizes) -> Plan:
    """The plan whose words and levels are estimated to take the fewest bits; of equal ones the first."""
    if len(plans) == 1:
        return plans[0]
    lengths = bit_lengths(sizes)
    costs = [cost(plan, geometry, exponents, lengths) for plan in plans]
    return plans[int(np.argmin(costs))]


def bit_lengths(sizes: Sizes) -> npt.NDArray[np.int64]:
    """The lengths in bits of numbers of these magnitudes, or of a sample of them, as `cost` takes them."""
    return np.minimum(np.frexp(sizes[:: _stride(sizes.size)])[1], _LENGTHS - 1).astype(np.int64)


def _stride(words: int) -> int:
    return max(1, words // _SAMPLE) | 1  # odd, so that it does not keep to some columns


def cost(
    plan: Plan,
    geometry: Geometry,
    exponents: Exponents | None,
    lengths: npt.NDArray[np.int64],
    share: float = 1.0,
) -> float:
    """Estimate the bits a span takes: the entropy of the lengths of its numbers, given their level.

    `lengths` are the `bit_lengths` of the span's numbers; the bits below the first one are the same for every plan.
    `share` is the part of a longer span they are, which pays that part of what classes cost beside their numbers.
    """
    words = geometry.words
    stride = _stride(words)
    keys = plan.keys(geometry, exponents)
    if keys is not None:
        own = keys[::stride]
        lengths = lengths + (own - own.min()).astype(np.int64) * _LENGTHS
    counts = np.bincount(lengths, minlength=_LENGTHS)
    counts = np.append(counts, np.zeros(-counts.size % _LENGTHS, np.int64)).reshape(-1, _LENGTHS)
    bits = _weighted_log(counts.sum(axis=1)) - _weighted_log(counts)
    cells = np.count_nonzero(counts) - np.count_nonzero(counts.sum(axis=1))
    bits += cells / (2 * np.log(2))  # a sample's entropy falls short by this (Miller 1955)
    classes = min(int(np.count_nonzero(counts[:, 1:].any(axis=1))), -(-words // CLASS_WORDS))
    tables = share * _CLASS_COST * classes + _levels_cost(plan.rows) + _levels_cost(plan.columns)
    return float(stride * bits) + tables


def _levels_cost(levels: Levels) -> float:
    if not levels.size:
        return 0.0
    counts = np.bincount(levels.view(np.uint8))
    entropy = levels.size * np.log2(levels.size) - _weighted_log(counts)
    return float(entropy + _LEVEL_COST * levels.size + _TABLE_COST)


def _weighted_log(counts: npt.NDArray[np.int64]) -> float:
    held = counts[counts > 0].astype(np.float64)
    return float((held * np.log2(held)).sum())
