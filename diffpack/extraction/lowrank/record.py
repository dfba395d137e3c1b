"""The low-rank part of one record's change: foretold at a step, and fitted where it pays against the grid alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from diffpack.extraction.encode import grid_quantiser
from diffpack.extraction.encode.grid_quantiser import PRICE, Histogram
from diffpack.extraction.lowrank.entropy import foretold
from diffpack.extraction.lowrank.fit import COMPONENT_BITS, LEAST_BITS, Fitted, fit, whole_weights
from diffpack.extraction.lowrank.matrices import MatrixView, views
from diffpack.extraction.lowrank.spectrum import Spectrum
from diffpack.extraction.scan.scan import Scan
from diffpack.format.factors.line import INT
from diffpack.format.factors.product import Factors, MatrixFactors
from diffpack.format.positions.geometry import Geometry
from diffpack.format.positions.level_costs import row_levels
from diffpack.tensors.dtypes import DTYPES

_SAMPLE = 1 << 17  # entries a comparison with the grid alone looks at
_FINE = 0.01
"""The part of the energy left by a fixed rank that rounding its factors may add."""
_SETTLED = 3  # rounds in which rank and what energy is worth are found in turn
RECORD_BITS = 250.0
"""What a record's matrices, scale and coding cost in the manifest and beside it."""
GROUP_BITS = 8 * 300.0
"""What a second group costs: records with factors stand in one of their own."""


@dataclass(frozen=True)
class Foreseen:
    """What factors at a step would come to: their bits, and the part of the change's norm that they leave."""

    bits: float
    left: float


NOTHING = Foreseen(0.0, 1.0)


class LowRank:
    """The matrices of a record's change seen in one way. `most` is the largest rank that is wanted."""

    def __init__(self, view: MatrixView, most: int) -> None:
        self.view = view
        self.spectra = [Spectrum(view, matrix, most) for matrix in range(view.count)]

    @cached_property
    def _sample(self) -> _Sample:
        return _Sample.of(self.view)

    @property
    def energy(self) -> float:
        """The sum of squares of the change."""
        return self.view.energy

    def _limit(self, step: float) -> float:
        """The squared singular value that a component which pays has at least."""
        return LEAST_BITS * PRICE * step * step * (self.view.rows + self.view.columns)

    @property
    def coarsest(self) -> float:
        """A step at which not even all energy in one component would pay."""
        return float(np.sqrt(self.energy / (LEAST_BITS * PRICE * (self.view.rows + self.view.columns))))

    def foreseen(self, step: float, *, alone: bool = False) -> Foreseen:
        """Foretell what factors would cost and leave at a step; `alone` there is no grid, which might serve as well."""
        values = np.concatenate([spectrum.values_above(self._limit(step)) for spectrum in self.spectra])
        if not values.size or not self.energy:
            return NOTHING
        bits, missed = np.full(values.size, COMPONENT_BITS), np.zeros(values.size)
        for side in (self.view.rows, self.view.columns):
            bits_each, missed_each = foretold(values / np.sqrt(side) / step)
            bits, missed = bits + side * bits_each, missed + side * missed_each * step * step
        gains = values**2 - missed
        left, chosen = self.energy, np.zeros(values.size, np.bool_)
        for _ in range(_SETTLED):
            worth = 1.0 if alone else self._sample.worth(step, np.sqrt(left / self.energy))
            chosen = gains * worth > PRICE * step * step * bits
            left = max(self.energy - float(gains[chosen].sum()), self.energy * 1e-9)
        return Foreseen(float(bits[chosen].sum()), float(np.sqrt(left / self.energy))) if chosen.any() else NOTHING

    def fitted(self, step: float) -> tuple[Factors | None, float]:
        """The factors at a step, and the bits they save against the grid alone at equal error; None if they do not."""
        found = [spectrum.above(self._limit(step)) for spectrum in self.spectra]
        if not any(one.values.size for one in found):
            return None, 0.0
        worth = self._sample.worth(step, self.foreseen(step).left)
        parts = [fit(one, step, worth) for one in found]
        if not any(part.rank for part in parts):
            return None, 0.0
        saved = self._sample.saved(parts, step) - sum(part.bits for part in parts) - RECORD_BITS
        factors = _whole(parts, self.view)
        return (factors, saved) if saved > 0 and factors is not None else (None, 0.0)

    def alone(self, step: float) -> tuple[Factors | None, float]:
        """The factors at a step where no grid stands beside them, and the bits they take; None if none pays."""
        found = [spectrum.above(self._limit(step)) for spectrum in self.spectra]
        parts = [fit(one, step, 1.0, alternate=False) for one in found]
        if not any(part.rank for part in parts):
            return None, 0.0
        return _whole(parts, self.view), sum(part.bits for part in parts) + RECORD_BITS

    def of_rank(self) -> Factors | None:
        """Factors of the largest rank that is wanted, on a step whose error is small beside what they leave.

        None if nothing changes, or products would not be exact.
        """
        found = [spectrum.above(0.0) for spectrum in self.spectra]
        kept = sum(float((one.values**2).sum()) for one in found)
        numbers = sum(one.values.size for one in found) * (self.view.rows + self.view.columns)
        if not kept or not numbers:
            return None
        missed = _FINE * max(self.energy - kept, _FINE * kept)
        step = float(np.sqrt(12 * missed / numbers))
        parts = [fit(one, step, np.inf) for one in found]
        return _whole(parts, self.view) if any(part.rank for part in parts) else None


def _whole(parts: Sequence[Fitted], view: MatrixView) -> Factors | None:
    """The factors of a record with whole weights, all of one scale; None if their products would not be exact."""
    weights, scale = whole_weights(parts)
    matrices = [MatrixFactors(INT, part.left, part.right, own) for part, own in zip(parts, weights, strict=True)]
    factors = Factors(view.rows, view.columns, scale, tuple(matrices))
    return factors if factors.fits else None


@dataclass(frozen=True)
class _Sample:
    """Some rows of each matrix, evenly spread, and what they stand for: all entries / those in the sample."""

    rows: npt.NDArray[np.int64]
    moved: npt.NDArray[np.float32]
    share: float

    @classmethod
    def of(cls, view: MatrixView) -> _Sample:
        count = min(view.rows, max(1, _SAMPLE // (view.columns * view.count)))
        rows = np.unique(np.linspace(0, view.rows - 1, count).astype(np.int64))
        moved = np.stack(
            [
                np.concatenate([view.change(matrix, row, row + 1) for row in rows.tolist()])
                for matrix in range(view.count)
            ]
        )
        return cls(rows, moved, view.rows / rows.size)

    @cached_property
    def _histogram(self) -> Histogram:
        return grid_quantiser.histogram(np.abs(self.moved).reshape(-1))

    def worth(self, step: float, left: float) -> float:
        """The part of the energy that the grid would leave of the change, shrunk to a part `left` of its norm."""
        energy = float(self._histogram[2].sum())
        if not energy:
            return 1.0
        return min(1.0, grid_quantiser.forecast(self._histogram, step / left)[1] / energy)

    def saved(self, parts: Sequence[Fitted], step: float) -> float:
        """The bits that the grid saves where factors were subtracted, its error counted at the price of bits."""
        rest = np.stack(
            [
                moved - ((part.left[:, self.rows].T * part.weights) @ part.right).astype(np.float32)
                for moved, part in zip(self.moved, parts, strict=True)
            ]
        )
        return self.share * (_cost(self.moved, step) - _cost(rest, step))


def _cost(moved: npt.NDArray[np.float32], step: float) -> float:
    """The bits of the grid for rows of differences, and its squared error in bits; like rows are coded together."""
    rows = moved.reshape(-1, moved.shape[-1])
    sizes = np.abs(rows)
    levels = row_levels(sizes.reshape(-1), Geometry.of([(DTYPES["F32"], rows.shape, 0, rows.size)]))
    total = 0.0
    for level in np.unique(levels):
        histogram = grid_quantiser.histogram(sizes[levels == level].reshape(-1))
        bits, missed = grid_quantiser.forecast(histogram, step)
        total += bits + missed / (PRICE * step * step)
    return total


def low_rank(scan: Scan, most: int, step: float) -> LowRank | None:
    """The way to see a record as matrices whose factors are foretold to be worth most at a step, if there is one."""
    ways = [LowRank(view, most) for view in views(scan)]
    if len(ways) < 2:
        return ways[0] if ways else None

    def cost(way: LowRank) -> float:
        foreseen = way.foreseen(step)
        return foreseen.bits + way.energy * foreseen.left**2 / (PRICE * step * step)

    return min(ways, key=cost)
