"""Tensors for the grid, and the record each becomes at a step: with factors where they pay."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from diffpack.extraction.choose.entries import block_magnitudes
from diffpack.extraction.encode.record_plan import RecordPlan
from diffpack.extraction.lowrank.record import GROUP_BITS, LowRank, low_rank
from diffpack.extraction.scan.scan import Scan
from diffpack.format.positions.levels import LEVELS
from diffpack.format.values import grid
from diffpack.format.values.grid import GRID
from diffpack.support.parallel import run_counted

_WEIGHT_RANGE = 64.0  # steps of weighted tensors differ from the common one by at most this factor


@dataclass(frozen=True)
class Graded:
    """A tensor for the grid: its scan, its largest |difference|, and the factor of the common step it takes.

    `low_rank` is its change seen as matrices, if it is to have factors where they pay.
    """

    scan: Scan
    largest: float
    factor: float
    low_rank: LowRank | None = None

    @property
    def coarsest(self) -> float:
        """The tensor's step from which on nothing is left of its change."""
        return max(2 * self.largest, 0.0 if self.low_rank is None else self.low_rank.coarsest)

    def own_step(self, step: float) -> float:
        """The tensor's step at a common one."""
        return max(step * self.factor, self.largest / grid.LIMIT)

    def plan(self, step: float) -> tuple[RecordPlan, float]:
        """The record at a common step, and the bits that its factors save, if it has any."""
        own = self.own_step(step)
        factors, saved = (None, 0.0) if self.low_rank is None else self.low_rank.fitted(own)
        return RecordPlan(self.scan, GRID, LEVELS, scale=np.float32(own / grid.UNITS), factors=factors), saved


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


def with_low_rank(
    graded: Sequence[Graded], most: int, step: float, threads: int | None, done: Callable[[int], None] | None = None
) -> list[Graded]:
    """The same, seen as matrices in the way that is best at a common step, of rank `most` at most.

    `done` is told the bytes of each tensor that was looked at.
    """
    jobs = [partial(low_rank, item.scan, most, item.own_step(step)) for item in graded]
    seen = run_counted(jobs, [item.scan.pair.info.nbytes for item in graded], threads, done)
    return [replace(item, low_rank=own) for item, own in zip(graded, seen, strict=True)]


def plans_at(
    graded: Sequence[Graded], step: float, threads: int | None, done: Callable[[int], None] | None = None
) -> list[RecordPlan]:
    """The records at a common step; none with factors if all together do not save what a group of them costs.

    `done` is told the bytes of each tensor that has one.
    """
    jobs = [partial(item.plan, step) for item in graded]
    made = run_counted(jobs, [item.scan.pair.info.nbytes for item in graded], threads, done)
    if sum(saved for _, saved in made) > GROUP_BITS:
        return [plan for plan, _ in made]
    return [replace(plan, factors=None) for plan, _ in made]
