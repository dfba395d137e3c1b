"""What a step of the grid, and of factors, will cost and miss: from histograms of a sample and singular values."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cached_property, partial

import numpy as np

from diffpack.extraction.budget.graded import Graded
from diffpack.extraction.choose.coding import sampled_rows
from diffpack.extraction.encode import grid_quantiser
from diffpack.extraction.encode.grid_quantiser import Histogram
from diffpack.extraction.lowrank.record import NOTHING, Foreseen
from diffpack.format.positions.level_costs import STEPS_AN_OCTAVE, row_levels
from diffpack.format.values import floats, grid
from diffpack.support.parallel import run_all

_PRECISION = 1.002  # of a step; the forecast is not better
_DESCENT = 1.5
"""The factor from one step to the next in the first part of a search."""


class Forecast:
    """Bits and squared error of a step, from histograms of a sample, class by class; of at least one tensor.

    A step of `coarsest` leaves nothing of any difference; one below `finest` gives what `finest` gives. Factors are
    foretold for tensors that are seen as matrices. `sampled` are the histograms of each, where they are known.
    """

    def __init__(
        self,
        graded: Sequence[Graded],
        threads: int | None = None,
        sampled: Sequence[list[tuple[int, Histogram]]] | None = None,
    ) -> None:
        sizes = [item.largest / item.factor for item in graded]
        self._largest, self.finest = max(sizes), min(sizes) / grid.LIMIT
        self._threads = threads
        self._tensors = list(zip(graded, sampled or map(_histograms, graded), strict=True))
        self.energy = float(sum(part[2].sum() for _, own in self._tensors for _, part in own))

    def with_factors(self, graded: Sequence[Graded]) -> Forecast:
        """The forecast for the same tensors, seen as matrices; what was sampled of them is not read again."""
        return Forecast(graded, self._threads, [own for _, own in self._tensors])

    @cached_property
    def coarsest(self) -> float:
        """The step from which on nothing is left of any difference, neither numbers of the grid nor factors."""
        step = 2 * self._largest
        if not self._factors_pay(step):
            return step
        return max(step, *(item.coarsest / item.factor for item, _ in self._tensors))

    def _factors_pay(self, step: float) -> bool:
        return any(factors.bits for factors in self._foreseen(step))

    def _foreseen(self, step: float) -> list[Foreseen]:
        return run_all([partial(_foreseen, item, step) for item, _ in self._tensors], self._threads)

    def at(self, step: float) -> tuple[float, float]:
        """The bytes and the squared error of a common step."""
        foreseen = self._foreseen(step)
        classes: defaultdict[int, list[Histogram]] = defaultdict(list)
        for (_, own), factors in zip(self._tensors, foreseen, strict=True):
            lower = round(STEPS_AN_OCTAVE * np.log2(factors.left))
            for level, histogram in own:
                classes[level + lower].append(grid_quantiser.shrunk(histogram, factors.left))
        outcomes = [grid_quantiser.forecast(grid_quantiser.together(own), step) for own in classes.values()]
        bits = sum(bits for bits, _ in outcomes) + sum(factors.bits for factors in foreseen)
        return bits / 8, sum(error for _, error in outcomes)

    def step_where(self, reached: Callable[[float, float], bool], near: float | None = None) -> float:
        """Find the smallest step at which `reached(bytes, squared error)` holds; it must hold for all larger ones.

        `near` is the one without factors, where these are foretold: the same if they would not pay there. Else it is
        where a search begins that takes steps as coarse as can be: finer ones ask for more singular vectors.
        """
        low, high = self._largest / grid.LIMIT, 2 * self._largest
        if near is not None:
            if not self._factors_pay(near):
                return near
            low, high = self._around(reached, near)
        while high / low > _PRECISION:
            middle = float(np.sqrt(low * high))
            if reached(*self.at(middle)):
                high = middle
            else:
                low = middle
        return high

    def _around(self, reached: Callable[[float, float], bool], near: float) -> tuple[float, float]:
        """A step at which `reached` does not hold (or the finest), and a coarser one at which it does."""
        if not reached(*self.at(near)):
            low = near
            while (high := low * _DESCENT) < self.coarsest and not reached(*self.at(high)):
                low = high
            return low, high
        high = near
        while (low := high / _DESCENT) > self._largest / grid.LIMIT and reached(*self.at(low)):
            high = low
        return low, high


def _foreseen(item: Graded, step: float) -> Foreseen:
    return NOTHING if item.low_rank is None else item.low_rank.foreseen(item.own_step(step))


def _histograms(item: Graded) -> list[tuple[int, Histogram]]:
    """For each level of rows, of a sample, (counts, sums, sums of squares) of |difference| in fine bins."""
    scan = item.scan
    dtype = scan.pair.info.dtype
    positions, geometry = sampled_rows(scan)
    moved = floats.difference(scan.reference.at(positions), scan.tuned[positions], dtype)
    sizes = np.abs(moved / item.factor).astype(np.float32)
    levels = np.repeat(row_levels(sizes, geometry), geometry.row_words)
    # Errors of weighted tensors are weighted: in units of its own step an error counts the same everywhere.
    share = scan.tuned.size / positions.size
    return [(int(level), share * grid_quantiser.histogram(sizes[levels == level])) for level in np.unique(levels)]
