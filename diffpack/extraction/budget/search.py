"""Which steps to try until one lands: from a forecast, then from what came out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from diffpack.extraction.budget.forecast import Forecast
from diffpack.extraction.target import Target
from diffpack.extraction.write import Written

SLACK = 0.01
"""How far under a budget, or a target error, a diff may land."""
AIM = 0.996
"""What is aimed at, as a part of the budget."""
ATTEMPTS = 8
_NEARLY_EXACT = 1e-3
"""A relative error below which the exact coding may be the smaller one."""
_NEAR = 1.1  # how far around a step its slope is looked at
_NO_ERROR = 1e-12  # stands for nothing, where logarithms are taken


@dataclass(frozen=True)
class Attempt:
    """A step, and the file it gave."""

    step: float
    file: Written


class Search:
    """Steps to try, one after the other, until one lands: `next` gives a step, `tell` takes what came of it.

    `near` is the first step of a search without factors, where the forecast has some.
    """

    def __init__(self, target: Target, forecast: Forecast, near: float | None = None) -> None:
        self._target = target
        self._near = near
        self._forecast = forecast
        self._attempts: list[Attempt] = []

    @property
    def best(self) -> Attempt | None:
        """The best attempt that keeps to the target."""
        kept = [item for item in self._attempts if self.keeps(item.file)]
        if self._target.budget is not None:
            return max(kept, key=lambda item: item.file.nbytes, default=None)
        return min(kept, key=lambda item: item.file.nbytes, default=None)

    @property
    def coarsest(self) -> float:
        """The step at which nothing is left of any difference."""
        return self._forecast.coarsest

    def keeps(self, file: Written) -> bool:
        """Tell whether a file keeps to the target."""
        return self._target.kept(file.nbytes, file.error)

    @property
    def landed(self) -> bool:
        """Whether the best attempt is as near to the target as is asked for."""
        best = self.best
        if best is None:
            return False
        if self._target.budget is not None:
            return best.file.nbytes >= (1 - SLACK) * self._target.budget
        return best.file.error >= (1 - SLACK) * (self._target.error or 0.0)

    def next(self) -> float | None:
        """The next step to try, None when there is nothing to gain."""
        if self.landed or len(self._attempts) >= ATTEMPTS:
            return None
        step = self._between(self._corrected(self._attempts)) if self._attempts else self.first
        return None if step in {item.step for item in self._attempts} else step

    def tell(self, attempt: Attempt) -> None:
        """Take what a step gave."""
        self._attempts.append(attempt)

    def _between(self, step: float) -> float:
        """Put a step between those known to be too fine and too coarse: a line can lead far off where bytes jump."""
        kept = [item.step for item in self._attempts if self.keeps(item.file)]
        missed = [item.step for item in self._attempts if not self.keeps(item.file)]
        fine, coarse = (missed, kept) if self._target.budget is not None else (kept, missed)
        low = max(fine, default=self._forecast.finest)
        high = min(coarse, default=self.coarsest)
        return step if low < step < high else float(np.sqrt(low * high))

    @cached_property
    def first(self) -> float:
        """The step the forecast takes for right."""
        if self._target.budget is not None:
            aim = AIM * self._target.budget
            return self._forecast.step_where(lambda nbytes, _: nbytes <= aim, self._near)
        missed = (AIM * (self._target.error or 0.0)) ** 2 * self._forecast.energy
        return self._forecast.step_where(lambda _, squared: squared > missed, self._near)

    def _corrected(self, attempts: Sequence[Attempt]) -> float:
        """The step at which a line through what came out, in logarithms, meets what is aimed at."""
        fixed = attempts[-1].file.nbytes - attempts[-1].file.grid_bytes
        if self._target.budget is not None:
            aim = AIM * self._target.budget - fixed
            if aim <= 0:  # the manifest shrinks with what is stored
                return self.coarsest
            points = [(np.log(item.step), np.log(max(item.file.grid_bytes, 1))) for item in attempts]
        else:
            aim = AIM * (self._target.error or 0.0)
            points = [(np.log(item.step), np.log(max(item.file.error, _NO_ERROR))) for item in attempts]
        points.sort(key=lambda point: abs(point[1] - np.log(aim)))
        beyond = [point for point in points if (point[1] > np.log(aim)) != (points[0][1] > np.log(aim))]
        others = beyond[:1] or points[1:2]
        slope = self._slope(attempts[-1].step)
        if others and others[0][0] != points[0][0]:
            secant = (others[0][1] - points[0][1]) / (others[0][0] - points[0][0])
            slope = secant if secant * slope > 0 else slope  # noise between two close steps can point the wrong way
        log_step = points[0][0] + (np.log(aim) - points[0][1]) / slope
        return float(np.exp(np.clip(log_step, np.log(self._forecast.finest), np.log(self.coarsest))))

    def _slope(self, step: float) -> float:
        """How bytes, or the error, change with the step around it: d log / d log, by the forecast."""
        at = 0 if self._target.budget is not None else 1
        low, high = (max(self._forecast.at(step * factor)[at], _NO_ERROR) for factor in (1 / _NEAR, _NEAR))
        slope = float(np.log(high / low) / np.log(_NEAR**2)) * (1 if at == 0 else 0.5)
        return slope or (-1.0 if at == 0 else 1.0)

    def nearly_exact(self, step: float) -> bool:
        """Tell whether so fine a step may take more than the exact coding."""
        energy = self._forecast.energy
        return energy == 0 or self._forecast.at(step)[1] / energy < _NEARLY_EXACT**2
