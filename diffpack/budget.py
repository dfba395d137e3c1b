"""A byte budget or a target error -> the step of one grid over the whole model.

One step for all tensors is what least squares asks for: at the best point of rate and distortion a bit buys the same
everywhere. What a step costs is foretold from histograms of a sample; then the diff is written, and the forecast
put right by what came out, until it lands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from diffpack.activity import row_levels
from diffpack.blocks import blocks
from diffpack.checkpoints import CheckpointLike, TensorInfo, open_checkpoint
from diffpack.codecs.positions.levels import Geometry
from diffpack.codecs.values import floats, grid
from diffpack.dtypes import to_float
from diffpack.encode import Record
from diffpack.errors import UsageError
from diffpack.estimate import sampled_rows
from diffpack.options import Target
from diffpack.scan import Scan
from diffpack.select import magnitudes

SLACK = 0.01
"""How far under a budget, or a target error, a diff may land."""
AIM = 0.996
"""What is aimed at, as a part of the budget."""
ATTEMPTS = 8
_WEIGHT_RANGE = 64.0  # steps of weighted tensors differ from the common one by at most this factor
_NEARLY_EXACT = 1e-3
"""A relative error below which the exact coding may be the smaller one."""


@dataclass(frozen=True)
class Graded:
    """A tensor for the grid: its scan, its largest |difference|, and the factor of the common step it takes."""

    scan: Scan
    largest: float
    factor: float

    def record(self, step: float) -> Record:
        """Give the record at a common step."""
        own = max(step * self.factor, self.largest / grid.LIMIT)
        return Record(self.scan, "grid", "levels", scale=np.float32(own / grid.UNITS))


@dataclass(frozen=True)
class Attempt:
    """What a step gave: bytes of the file, bytes of its grid values, relative error."""

    step: float
    nbytes: int
    grid_bytes: int
    error: float


def weights(importance: CheckpointLike | None, tensors: Mapping[str, TensorInfo]) -> dict[str, float] | None:
    """Read the weight of each tensor: the mean of what an importance checkpoint holds under its name.

    Raises `UsageError` if a weight is negative or not finite, or no name is one of `tensors`.
    """
    if importance is None:
        return None
    source = open_checkpoint(importance)
    found = {}
    for name in sorted(source.tensors.keys() & tensors.keys()):
        dtype = source.info(name).dtype
        if not dtype.arithmetic:
            raise UsageError(f"{source.source}: {name!r}: weights are floats, not {dtype.name}")
        found[name] = float(np.mean(to_float(source.words(name), dtype), dtype=np.float64))
        if not 0 <= found[name] < np.inf:
            raise UsageError(f"{source.source}: {name!r}: a weight is finite and not negative, not {found[name]}")
    if not found:
        raise UsageError(
            f"{source.source}: holds a weight for none of the tuned checkpoint's tensors; are its names others?"
        )
    return found


def grade(scans: Sequence[Scan], importance: Mapping[str, float] | None) -> list[Graded]:
    """Measure what the grid needs to know of each tensor.

    With `importance` (a weight of the squared error for each tensor, as a Fisher estimate's mean) the step of a tensor
    is the common one times (mean weight / its weight)^1/2; a tensor without one has the mean weight.
    """
    known = {name: weight for name, weight in (importance or {}).items() if weight > 0}
    sizes = np.array([item.tuned.size for item in scans if item.pair.name in known], np.float64)
    logs = np.array([np.log(known[item.pair.name]) for item in scans if item.pair.name in known])
    mean = float(np.exp((sizes * logs).sum() / sizes.sum())) if sizes.sum() else 1.0
    graded = []
    for item in scans:
        weight = (importance or {}).get(item.pair.name, mean)
        factor = float(np.clip(np.sqrt(mean / weight), 1 / _WEIGHT_RANGE, _WEIGHT_RANGE)) if weight else _WEIGHT_RANGE
        graded.append(Graded(item, _largest(item), factor))
    return graded


def _largest(item: Scan) -> float:
    changed = zip(blocks(item.tuned.size), item.changed, strict=True)
    return max((float(magnitudes(item, *bounds).max()) for bounds, count in changed if count), default=0.0)


class Forecast:
    """Bits and squared error of a step, from histograms of a sample, class by class."""

    def __init__(self, graded: Sequence[Graded]) -> None:
        self.largest = max((item.largest / item.factor for item in graded), default=0.0)
        classes: dict[int, npt.NDArray[np.float64]] = {}
        for item in graded:
            if item.largest:
                for level, histogram in _histograms(item):
                    classes[level] = classes[level] + histogram if level in classes else histogram
        self._classes = list(classes.values())
        self.energy = float(sum(histogram[2].sum() for histogram in self._classes))

    def at(self, step: float) -> tuple[float, float]:
        """Give the bytes and the squared error of a common step."""
        outcomes = [grid.forecast(histogram, step) for histogram in self._classes]
        return sum(bits for bits, _ in outcomes) / 8, sum(error for _, error in outcomes)

    def step_where(self, reached: Callable[[float, float], bool]) -> float:
        """Find the smallest step at which `reached(bytes, squared error)` holds; it must hold for all larger ones."""
        low, high = self.largest / grid.LIMIT, self.largest * 2.0
        while high / low > _PRECISION:
            middle = float(np.sqrt(low * high))
            if reached(*self.at(middle)):
                high = middle
            else:
                low = middle
        return high


_PRECISION = 1.002  # of a step; the forecast is not better
_NEAR = 1.1  # how far around a step its slope is looked at
_NO_ERROR = 1e-12  # stands for nothing, where logarithms are taken


def _histograms(item: Graded) -> list[tuple[int, npt.NDArray[np.float64]]]:
    """Give for each level of rows, of a sample, (counts, sums, sums of squares) of |difference| in fine bins."""
    scan = item.scan
    dtype = scan.pair.info.dtype
    positions, rows, width = sampled_rows(scan)
    moved = floats.difference(scan.reference.at(positions), scan.tuned[positions], dtype)
    sizes = np.abs(moved / item.factor).astype(np.float32)
    geometry = Geometry.of([(dtype, (rows, width) if rows > 1 else (width,), 0, positions.size)])
    levels = np.repeat(row_levels(sizes, geometry), geometry.row_words)
    # Errors of weighted tensors are weighted: in units of its own step an error counts the same everywhere.
    share = scan.tuned.size / positions.size
    return [(int(level), share * grid.histogram(sizes[levels == level])) for level in np.unique(levels)]


class Search:
    """Steps to try, one after the other, until one lands: `next` gives a step, `tell` takes what came of it."""

    def __init__(self, target: Target, forecast: Forecast) -> None:
        self._target = target
        self._forecast = forecast
        self._attempts: list[Attempt] = []

    @property
    def best(self) -> Attempt | None:
        """The best attempt that keeps to the target."""
        kept = [item for item in self._attempts if self.keeps(item)]
        if self._target.budget is not None:
            return max(kept, key=lambda item: item.nbytes, default=None)
        return min(kept, key=lambda item: item.nbytes, default=None)

    def keeps(self, item: Attempt) -> bool:
        """Tell whether an attempt keeps to the target."""
        if self._target.budget is not None:
            return item.nbytes <= self._target.budget
        return item.error <= (self._target.error or 0.0)

    def _landed(self) -> bool:
        best = self.best
        if best is None:
            return False
        if self._target.budget is not None:
            return best.nbytes >= (1 - SLACK) * self._target.budget
        return best.error >= (1 - SLACK) * (self._target.error or 0.0)

    def next(self) -> float | None:
        """Give the next step to try, None when there is nothing to gain. Raises `UsageError` for a hopeless budget."""
        if self._landed() or len(self._attempts) >= ATTEMPTS:
            return None
        step = self._corrected(self._attempts) if self._attempts else self._first()
        return None if step in {item.step for item in self._attempts} else step

    def tell(self, attempt: Attempt) -> None:
        """Take what a step gave."""
        self._attempts.append(attempt)

    def explain(self) -> str:
        """Say why nothing kept to the target."""
        tried = ", ".join(f"{item.nbytes:,} bytes with error {item.error:.4f}" for item in self._attempts)
        return f"found no diff that keeps to the target; tried: {tried or 'nothing'}"

    def _first(self) -> float:
        """Give the step the forecast takes for right."""
        if self._target.budget is not None:
            aim = AIM * self._target.budget
            return self._forecast.step_where(lambda nbytes, _: nbytes <= aim)
        missed = (AIM * (self._target.error or 0.0)) ** 2 * self._forecast.energy
        return self._forecast.step_where(lambda _, squared: squared > missed)

    def _corrected(self, attempts: Sequence[Attempt]) -> float:
        """Give the step at which a line through what came out, in logarithms, meets what is aimed at."""
        fixed = attempts[-1].nbytes - attempts[-1].grid_bytes
        if self._target.budget is not None:
            aim = AIM * self._target.budget - fixed
            if aim <= 0:
                raise UsageError(
                    f"a budget of {self._target.budget:,} bytes is not enough: what is stored exactly, the manifest "
                    f"and the files around the tensors take {fixed:,}; raise it, or leave files out"
                )
            points = [(np.log(item.step), np.log(max(item.grid_bytes, 1))) for item in attempts]
        else:
            aim = AIM * (self._target.error or 0.0)
            points = [(np.log(item.step), np.log(max(item.error, _NO_ERROR))) for item in attempts]
        points.sort(key=lambda point: abs(point[1] - np.log(aim)))
        beyond = [point for point in points if (point[1] > np.log(aim)) != (points[0][1] > np.log(aim))]
        others = beyond[:1] or points[1:2]
        slope = self._slope(attempts[-1].step)
        if others and others[0][0] != points[0][0]:
            found = (others[0][1] - points[0][1]) / (others[0][0] - points[0][0])
            slope = found if found * slope > 0 else slope  # noise between two close steps can point the wrong way
        return float(np.exp(points[0][0] + (np.log(aim) - points[0][1]) / slope))

    def _slope(self, step: float) -> float:
        """Give how bytes, or the error, change with the step around it: d log / d log, by the forecast."""
        at = 0 if self._target.budget is not None else 1
        low, high = (max(self._forecast.at(step * factor)[at], _NO_ERROR) for factor in (1 / _NEAR, _NEAR))
        slope = float(np.log(high / low) / np.log(_NEAR**2)) * (1 if at == 0 else 0.5)
        return slope or (-1.0 if at == 0 else 1.0)

    def nearly_exact(self, step: float) -> bool:
        """Tell whether so fine a step may take more than the exact coding."""
        energy = self._forecast.energy
        return energy == 0 or self._forecast.at(step)[1] / energy < _NEARLY_EXACT**2
