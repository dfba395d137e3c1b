"""A byte budget or a target error -> the diff that lands on it.

One step for all tensors is what least squares asks for: at the best point of rate and distortion a bit buys the same
everywhere. What a step gives is foretold (`forecast`); then the diff is written, applied and measured, and the step put
right by what came out, until it lands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO

import numpy as np

from diffpack.errors import UsageError
from diffpack.extraction.budget.forecast import Forecast, grade
from diffpack.extraction.budget.passes import Passes
from diffpack.extraction.choose.records import choose, exact_records, may_be_lossy
from diffpack.extraction.options import Options
from diffpack.extraction.scan.survey import Survey
from diffpack.extraction.target import Target
from diffpack.extraction.write import Written, write_plans
from diffpack.format.values.grid import GRID

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


def write_to_target(
    file: BinaryIO,
    surveyed: Survey,
    options: Options,
    target: Target,
    metadata: dict[str, str],
    passes: Passes,
) -> Written:
    """Write the diff at one step after the other until it lands; end with the best one written, and say what it is.

    Where no step keeps to the target, the exact diff does if it is an error, and nothing if it is a budget: then raises
    `UsageError`.
    """
    graded = grade([item for item in surveyed.stored if may_be_lossy(item, GRID)], options.importance)
    own = {item.scan.pair.name for item in graded}
    rest = exact_records([item for item in surveyed.stored if item.pair.name not in own], options)

    def write_exactly() -> Written:
        plain = replace(options, target=None, importance=None)
        plans = choose(surveyed.stored, plain, 0)
        return write_plans(_emptied(file), surveyed, plans, plain, metadata, passes.next())

    def write(step: float) -> Attempt:
        plans = rest + [item.plan(step) for item in graded]
        return Attempt(step, write_plans(_emptied(file), surveyed, plans, options, metadata, passes.next()))

    if not graded:
        whole = write_exactly()
        if not target.kept(whole.nbytes, whole.error):
            raise UsageError(_not_enough(target, whole))
        return whole
    search = Search(target, Forecast(graded))
    last = None
    while (step := search.next()) is not None:
        if last is None and search.nearly_exact(step):
            whole = write_exactly()
            if search.keeps(whole):
                return whole
        last = write(step)
        search.tell(last)
    best = search.best
    if best is None and target.error is not None:
        return write_exactly()
    if best is None:
        last = write(search.coarsest)
        if not search.keeps(last.file):
            raise UsageError(_not_enough(target, last.file))
        return last.file
    return best.file if best is last else write(best.step).file


def _not_enough(target: Target, least: Written) -> str:
    return (
        f"a budget of {target.budget or 0:,} bytes is not enough: what is stored exactly, the manifest and the files "
        f"around the tensors take {least.nbytes - least.grid_bytes:,}; raise it, or leave files out"
    )


def _emptied(file: BinaryIO) -> BinaryIO:
    file.seek(0)
    file.truncate()
    return file


class Search:
    """Steps to try, one after the other, until one lands: `next` gives a step, `tell` takes what came of it."""

    def __init__(self, target: Target, forecast: Forecast) -> None:
        self._target = target
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
        return 2 * self._forecast.largest

    def keeps(self, file: Written) -> bool:
        """Tell whether a file keeps to the target."""
        return self._target.kept(file.nbytes, file.error)

    def _landed(self) -> bool:
        best = self.best
        if best is None:
            return False
        if self._target.budget is not None:
            return best.file.nbytes >= (1 - SLACK) * self._target.budget
        return best.file.error >= (1 - SLACK) * (self._target.error or 0.0)

    def next(self) -> float | None:
        """The next step to try, None when there is nothing to gain."""
        if self._landed() or len(self._attempts) >= ATTEMPTS:
            return None
        step = self._between(self._corrected(self._attempts)) if self._attempts else self._first()
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

    def _first(self) -> float:
        """The step the forecast takes for right."""
        if self._target.budget is not None:
            aim = AIM * self._target.budget
            return self._forecast.step_where(lambda nbytes, _: nbytes <= aim)
        missed = (AIM * (self._target.error or 0.0)) ** 2 * self._forecast.energy
        return self._forecast.step_where(lambda _, squared: squared > missed)

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
