"""What a step of the grid will cost and miss, foretold from histograms of a sample of each tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from diffpack.extraction.choose.coding import sampled_rows
from diffpack.extraction.choose.entries import block_magnitudes
from diffpack.extraction.encode import grid_quantiser
from diffpack.extraction.encode.level_costs import row_levels
from diffpack.extraction.encode.record_plan import RecordPlan
from diffpack.extraction.scan.scan import Scan
from diffpack.format.positions.levels import LEVELS
from diffpack.format.values import floats, grid
from diffpack.format.values.grid import GRID

_PRECISION = 1.002  # of a step; the forecast is not better
_WEIGHT_RANGE = 64.0  # steps of weighted tensors differ from the common one by at most this factor


@dataclass(frozen=True)
class Graded:
    """A tensor for the grid: its scan, its largest |difference|, and the factor of the common step it takes."""

    scan: Scan
    largest: float
    factor: float

    def plan(self, step: float) -> RecordPlan:
        """The record at a common step."""
        own = max(step * self.factor, self.largest / grid.LIMIT)
        return RecordPlan(self.scan, GRID, LEVELS, scale=np.float32(own / grid.UNITS))


def grade(scans: Sequence[Scan], importance: Mapping[str, float] | None) -> list[Graded]:
    """Measure what the grid needs to know of each tensor.

    With `importance` (a weight of the squared error for each tensor, as a Fisher estimate's mean) the step of a tensor
    is the common one times (mean weight / its weight)^1/2; a tensor without one has the mean weight. Tensors whose
    differences are all zero (signs of zeros) are left out: no step fits them.
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
    return [item for item in graded if item.largest > 0]


def _largest(item: Scan) -> float:
    return max((float(block_magnitudes(item, *bounds).max()) for bounds in item.changed_blocks()), default=0.0)


class Forecast:
    """Bits and squared error of a step, from histograms of a sample, class by class; of at least one tensor.

    `largest` is the largest difference in common steps; a step below `finest` gives what `finest` gives.
    """

    def __init__(self, graded: Sequence[Graded]) -> None:
        sizes = [item.largest / item.factor for item in graded]
        self.largest, self.finest = max(sizes), min(sizes) / grid.LIMIT
        classes: dict[int, npt.NDArray[np.float64]] = {}
        for item in graded:
            for level, histogram in _histograms(item):
                classes[level] = classes[level] + histogram if level in classes else histogram
        self._classes = list(classes.values())
        self.energy = float(sum(histogram[2].sum() for histogram in self._classes))

    def at(self, step: float) -> tuple[float, float]:
        """The bytes and the squared error of a common step."""
        outcomes = [grid_quantiser.forecast(histogram, step) for histogram in self._classes]
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


def _histograms(item: Graded) -> list[tuple[int, npt.NDArray[np.float64]]]:
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
