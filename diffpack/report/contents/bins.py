"""Numbers counted by their powers of two, exactly, block by block."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

_LOWEST = 1075
"""More than the exponent of the smallest float64 is below 0 (2^-1074)."""
_MOST = _LOWEST + 1024


@dataclass(frozen=True)
class Histogram:
    """Counts of changed entries between `edges`: bin i holds edges[i] <= x < edges[i + 1]; powers of two.

    There is one edge more than bins, or no bin and no edge; no bin at either end is empty, but that of steps of 1. The
    last edge is infinite where numbers reach 2^1023. `zero` are entries that are stored and do not move, and numbers
    that differ in their bits alone (-0.0 and 0.0); `not_finite` those whose change is infinite or no number. With these
    two the counts add up to what `TensorDiff.count` says of all the records that are in it.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    not_finite: int = 0
    zero: int = 0


@dataclass
class Bins:
    """The same while it is being counted: `counts` by exponent, from 2^-1075 on."""

    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(_MOST, np.int64))
    not_finite: int = 0
    zero: int = 0

    def add_steps(self, steps: npt.NDArray[Any]) -> None:
        """Count signed integers by their magnitudes, 2^63 too."""
        sizes = np.abs(steps).view(f"<u{steps.itemsize}")  # the lowest number is its own negative
        if steps.itemsize == 8:
            sizes = sizes & ~(sizes >> np.uint64(1))  # its highest bit alone leads, so that no float64 is rounded up
        self.add_floats(sizes.astype(np.float64))

    def add_floats(self, values: npt.NDArray[Any]) -> None:
        """Count floats by their magnitudes."""
        finite = np.isfinite(values)
        if not finite.all():
            self.not_finite += int(finite.size - np.count_nonzero(finite))
            values = values[finite]
        moved = values[values != 0]
        self.zero += values.size - moved.size
        exponents = np.frexp(moved)[1] + (_LOWEST - 1)  # frexp has mantissas from 1/2 on
        self.counts += np.bincount(exponents, minlength=_MOST)

    def add(self, other: Bins) -> None:
        """Count what another one has counted."""
        self.counts += other.counts
        self.not_finite += other.not_finite
        self.zero += other.zero

    def histogram(self, *, first: int | None = None) -> Histogram:
        """What was counted; from the bin of 2^first on if that is given, else from the lowest."""
        there = np.flatnonzero(self.counts)
        if not there.size:
            return Histogram((), (), self.not_finite, self.zero)
        start = int(there[0]) if first is None else first + _LOWEST
        stop = int(there[-1]) + 1
        edges = tuple(_power(at - _LOWEST) for at in range(start, stop + 1))
        return Histogram(edges, tuple(self.counts[start:stop].tolist()), self.not_finite, self.zero)


def _power(exponent: int) -> float:
    return math.ldexp(1, exponent) if exponent < 1024 else math.inf
