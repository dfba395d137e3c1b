"""Which number of the grid an entry gets: the one that costs least, squared error and bits together.

Entropy-constrained quantisation (Chou, Lookabaugh and Gray 1989), class by class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from diffpack.format.streams import Numbers
from diffpack.format.values.grid import LIMIT, OFFSETS, UNITS

Histogram = npt.NDArray[np.float64]
PRICE = 0.16
"""Squared steps a bit is worth. The error at a given size is within 1 % of its least from 0.08 to 0.26."""
_FINE = 16  # up to this many steps entries are weighed one against the other, beyond they are rounded
_BIN_BITS = 6  # 64 bins an octave: the first 15 bits of a positive float32
_SHIFT = 23 - _BIN_BITS
_BINS = np.float32(_FINE).view(np.uint32).item() >> _SHIFT
_ROUNDS = 8
_DITHER = 0.04
_GOLDEN = 2654435769  # 2^32 / the golden ratio: its multiples, modulo 2^32, are spread evenly


def quantise(differences: npt.NDArray[np.float32]) -> tuple[Numbers, tuple[int, int, int]]:
    """Choose the numbers (int16) and the offsets of a class; `differences` are in steps (1-D, finite)."""
    magnitude = np.abs(differences)
    weighed = _dithered(magnitude)
    bins = np.minimum(weighed.view(np.uint32) >> np.uint32(_SHIFT), np.uint32(_BINS)).astype(np.int32)
    counts = np.bincount(bins, minlength=_BINS + 1)
    sums = np.bincount(bins, weighed, minlength=_BINS + 1)
    held = counts[:_BINS]
    numbers = _decide(held, np.where(held > 0, sums[:_BINS] / np.maximum(held, 1), _edges()))
    chosen = np.append(numbers, 0).astype(np.int16)[bins]
    if counts[_BINS]:
        large = np.flatnonzero(bins == _BINS)
        chosen[large] = np.rint(np.minimum(magnitude[large], LIMIT))
    return np.where(differences < 0, -chosen, chosen), _offsets(chosen, magnitude)


def _dithered(magnitude: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Move magnitudes by up to 0.02 steps, by their place alone, for choosing numbers.

    Differences in a narrow dtype take few values, each many times. What shares one would cross a threshold together,
    and no budget between could be met; so near a threshold a place decides, which costs next to nothing.
    """
    places = np.arange(magnitude.size, dtype=np.uint32) * np.uint32(_GOLDEN)
    moved = places.astype(np.float32) * np.float32(_DITHER * 2.0**-32) - np.float32(_DITHER / 2)
    return np.maximum(magnitude + moved, np.float32(0))


def _decide(counts: npt.NDArray[Any], centres: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """The number of each bin: what costs least in squared error + price x bits.

    The bits follow from how often the numbers are chosen, so both are found in turn. `centres` (in steps) increase.
    """
    below = np.floor(centres).astype(np.int64)
    numbers = np.rint(centres).astype(np.int64)
    if not counts.any():
        return numbers
    for _ in range(_ROUNDS):
        points, bits = _points_and_bits(numbers, counts, centres)
        candidates = _candidates(below)
        costs = [np.square(centres - points[number]) + PRICE * bits[number] for number in candidates]
        best = np.choose(np.argmin(costs, axis=0), candidates)
        if np.array_equal(best, numbers):
            break
        numbers = best
    increasing: npt.NDArray[np.int64] = np.maximum.accumulate(numbers)
    return increasing


def histogram(magnitude: npt.NDArray[np.float32]) -> Histogram:
    """Counts, sums and sums of squares of magnitudes (1-D, finite) in 64 bins an octave: (3, bins that hold some)."""
    bins = (magnitude.view(np.uint32) >> np.uint32(_SHIFT)).astype(np.int32)
    wide = magnitude.astype(np.float64)
    return _filled(bins, [None, wide, wide * wide])


def shrunk(histogram: Histogram, factor: float) -> Histogram:
    """The histogram of magnitudes that are `factor` times as large."""
    moved: Histogram = histogram * np.array([[1.0], [factor], [factor * factor]])
    return moved


def together(histograms: Sequence[Histogram]) -> Histogram:
    """The histogram of all magnitudes of several, in bins as those of one."""
    columns = np.concatenate(histograms, axis=1)
    centres = (columns[1] / columns[0]).astype(np.float32)
    bins = (centres.view(np.uint32) >> np.uint32(_SHIFT)).astype(np.int32)
    return _filled(bins, list(columns))


def _filled(bins: npt.NDArray[np.int32], weights: Sequence[npt.NDArray[np.float64] | None]) -> Histogram:
    whole = np.stack([np.bincount(bins, each).astype(np.float64) for each in weights])
    return np.ascontiguousarray(whole[:, whole[0] > 0])


def forecast(histogram: Histogram, step: float) -> tuple[float, float]:
    """Foretell the bits and the squared error of a class at a step, from its histogram."""
    counts, sums, squares = histogram
    centres = sums / counts / step
    fine = centres < _FINE
    numbers = np.rint(np.minimum(centres, LIMIT)).astype(np.int64)
    numbers[fine] = _decide(counts[fine], centres[fine])
    frequencies = np.bincount(numbers, counts)
    means = np.bincount(numbers, counts * centres) / np.maximum(frequencies, np.finfo(np.float64).tiny)
    bits = -np.log2(frequencies[numbers] / counts.sum()) + (numbers > 0)
    points = np.where(numbers > 0, means[numbers], 0.0)
    missed = np.maximum(squares / step**2 - 2 * counts * centres * points + counts * points**2, 0.0)
    # A bin far out is wider than a step: its entries spread evenly over the numbers in it.
    bits[~fine] += np.maximum(np.floor(np.log2(centres[~fine])) - _BIN_BITS, 0.0)
    missed[~fine] = counts[~fine] / 12
    return float((counts * bits).sum()), float(missed.sum()) * step**2


def _candidates(below: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    return [np.zeros_like(below), np.maximum(below - 1, 0), below, below + 1]


def _points_and_bits(
    numbers: npt.NDArray[np.int64], counts: npt.NDArray[Any], centres: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """For each number the mean of what got it, and the bits it costs (its sign included)."""
    held = np.bincount(numbers, counts, minlength=_FINE + 2)
    summed = np.bincount(numbers, counts * centres, minlength=_FINE + 2)
    points = np.where(held > 0, summed / np.maximum(held, 1), np.arange(held.size))
    points[0] = 0.0
    bits = -np.log2(np.maximum(held, 0.5) / held.sum())
    bits[1:] += 1
    return points, bits


def _edges() -> npt.NDArray[np.float64]:
    return (np.arange(_BINS, dtype=np.uint32) << np.uint32(_SHIFT)).view(np.float32).astype(np.float64)


def _offsets(numbers: Numbers, magnitude: npt.NDArray[np.float32]) -> tuple[int, int, int]:
    """How far, in units, the mean of what got 1, 2, and 3 or more lies from the number itself."""
    capped = np.minimum(numbers, OFFSETS)
    counts = np.bincount(capped, minlength=OFFSETS + 1)[1:]
    excess = np.bincount(capped, magnitude - numbers, minlength=OFFSETS + 1)[1:]
    units = np.clip(np.rint(UNITS * excess / np.maximum(counts, 1)), -UNITS // 2, UNITS // 2 - 1)
    first, second, more = (int(unit) for unit in units)
    return first, second, more
