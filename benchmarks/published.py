"""Three published ways to compress a fine-tune's change, as we read their papers, stored as diffs.

    ImPart, arXiv 2504.13237: singular vectors made sparse at random, the less the larger their singular value is.
    Delta-CoMe, arXiv 2406.08903: singular vectors in 8, 3 and 2 bits, the more the larger their singular value is.
    UltraDelta, arXiv 2505.13563: entries in 4 bits; of each of their values the same share dropped at random, less in
    tensors of large variance.

Otherwise than there: every matrix is treated, an embedding table too, and nothing else is; scales are those of least
squares, since the error is what is compared; there is no calibration data. The numbers are entropy-coded by the
library's own streams, which the papers do not do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

import diffpack
from benchmarks.pairs import Arrays
from diffpack.checkpoints import open_checkpoint
from diffpack.diff.publish import write_diff
from diffpack.extraction.encode.record_plan import RecordPlan
from diffpack.extraction.lowrank.matrices import views
from diffpack.extraction.lowrank.spectrum import Components, Spectrum
from diffpack.extraction.options import Options
from diffpack.extraction.scan.survey import Survey, survey
from diffpack.extraction.write import write_plans
from diffpack.format.factors.line import INT
from diffpack.format.factors.product import LARGEST_WEIGHT, Factors, MatrixFactors
from diffpack.format.positions.levels import LEVELS
from diffpack.format.values.grid import GRID
from diffpack.support.inputs import Inputs

Ints = npt.NDArray[np.int64]
NORMAL_STEPS = {2: 0.9957, 3: 0.586}
"""Steps of 4 and 8 levels, in deviations, that suit a normal distribution best (Max 1960)."""
BITS = ((1, 8), (3, 3))
"""The first components in 8 bits, the next in 3, the rest in 2: at rank 384 what 2 and 32 are at 4096."""
PRUNED_FIRST = 0.6
"""ImPart's beta: the part of the singular vectors that is left out before the rest is made sparse."""
UNEVEN = 0.5
"""By how much of itself the share that UltraDelta keeps differs between tensors of large, middle and small variance."""
LEVELS_A_SIDE = 7
_OPTIONS = Options(value_choice="lowrank")


@dataclass(frozen=True)
class Published:
    """The pair, and the methods: each makes a diff of one number, the more the larger."""

    base: Arrays
    tuned: Arrays

    def impart(self, kept: float) -> diffpack.Diff:
        """`kept`: singular vectors that all kept entries of a matrix would fill."""
        return self._stored(lambda found: _sparse(found, kept))

    def delta_come(self, rank: float) -> diffpack.Diff:
        """`rank`: singular vectors of each matrix."""
        return self._stored(lambda found: _mixed(found.first(max(1, round(rank)))))

    def ultradelta(self, share: float) -> diffpack.Diff:
        """`share`: entries kept of those that 4 bits do not make 0."""
        return diffpack.extract(self.base, _thinned(self.base, self.tuned, share), values="int4", rename=())

    @cached_property
    def _survey(self) -> Survey:
        return survey(open_checkpoint(self.base), open_checkpoint(self.tuned), _OPTIONS, None)

    @cached_property
    def _spectra(self) -> Mapping[str, Components]:
        """The whole singular value decomposition of every matrix's change."""
        ways = {scan.pair.name: views(scan)[:1] for scan in self._survey.stored}
        return {name: Spectrum(way, 0, way.columns).above(0.0) for name, own in ways.items() for way in own}

    def _stored(self, quantised: Callable[[Components], tuple[Ints, Ints]]) -> diffpack.Diff:
        """The diff with these factors of every matrix, and nothing else."""
        plans = []
        for scan in self._survey.stored:
            if scan.pair.name in self._spectra:
                found = self._spectra[scan.pair.name]
                factors = _factors(found, *quantised(found))
                plans.append(RecordPlan(scan, GRID, LEVELS, factors=factors))

        def body(file: BinaryIO) -> None:
            write_plans(file, self._survey, plans, _OPTIONS, {}, None)

        return write_diff(None, Inputs([]), False, body)


def _factors(found: Components, left: Ints, right: Ints) -> Factors:
    """Whole numbers for the first components, on the weights of least squares."""
    found = found.first(len(left))
    dots = [(own * vectors).sum(axis=1) for own, vectors in ((left, found.left), (right, found.right))]
    squares = [np.maximum((own**2).sum(axis=1), 1) for own in (left, right)]
    weights = found.values * dots[0] * dots[1] / squares[0] / squares[1]
    kept = np.flatnonzero(weights > 0)
    scale = np.float32(weights[kept].max(initial=0.0) / LARGEST_WEIGHT)
    whole = np.clip(np.rint(weights[kept] / (scale or 1)), 1, LARGEST_WEIGHT).astype(np.uint16)
    matrix = MatrixFactors(INT, left[kept].astype(np.int16), right[kept].astype(np.int16), whole)
    return Factors(left.shape[1], right.shape[1], scale, (matrix,))


def _mixed(found: Components) -> tuple[Ints, Ints]:
    """Delta-CoMe: bits by the place of the singular value."""
    bits = np.concatenate([*(np.full(count, own) for count, own in BITS), np.full(found.values.size, 2)])
    sides = [
        np.stack([_rounded(row, int(own)) for row, own in zip(vectors, bits, strict=False)])
        for vectors in (found.left, found.right)
    ]
    return sides[0], sides[1]


def _rounded(row: npt.NDArray[np.float32], bits: int) -> Ints:
    """Levels of one step: odd numbers of 2 or 3 bits, so that there is none at 0; whole ones of 8."""
    if bits not in NORMAL_STEPS:
        whole: Ints = np.rint(row / np.abs(row).max() * (2 ** (bits - 1) - 1)).astype(np.int64)
        return whole
    levels: Ints = 2 * np.floor(row / (NORMAL_STEPS[bits] * row.std())).astype(np.int64) + 1
    return np.clip(levels, 1 - 2**bits, 2**bits - 1)


def _sparse(found: Components, kept: float) -> tuple[Ints, Ints]:
    """ImPart: of each singular vector a share of its entries at random, in 8 bits."""
    rank = found.values.size
    gamma = max(0.0, (1 - kept / rank - PRUNED_FIRST) / (1 - PRUNED_FIRST))
    shares = 1 - gamma * (1 - found.values / found.values[0])
    filled = np.cumsum(shares)
    count = min(int(np.searchsorted(filled, kept)) + 1, rank)
    shares[count - 1] = max(0.0, min(shares[count - 1], kept - filled[count - 1] + shares[count - 1]))
    rng = np.random.default_rng(0)
    sides = []
    for vectors in (found.left, found.right):
        rows = zip(vectors[:count], shares[:count], strict=True)
        sides.append(np.stack([_rounded(row, 8) * (rng.random(row.size) < share) for row, share in rows]))
    return sides[0], sides[1]


def _thinned(base: Arrays, tuned: Arrays, share: float) -> Arrays:
    """UltraDelta's result: the base and what is left of the change of its matrices."""
    changes = {name: tuned[name] - base[name] for name in tuned if tuned[name].ndim == 2}
    shares = _by_variance(changes, share)
    rng = np.random.default_rng(0)
    result = dict(base)
    for name, change in changes.items():
        step = np.abs(change).max() / LEVELS_A_SIDE or 1.0  # where nothing changed
        levels = np.rint(change / step).astype(np.int64)
        for level in np.unique(levels[levels != 0]):
            own = np.flatnonzero(levels == level)
            levels.reshape(-1)[rng.permutation(own)[round(own.size * shares[name]) :]] = 0
        result[name] = (base[name] + levels * step).astype(np.float32)
    return result


def _by_variance(changes: Arrays, share: float) -> dict[str, float]:
    """More of the third of the entries that is in tensors of large variance, less of that of small variance."""
    order = sorted(changes, key=lambda name: changes[name].var())
    total, before, shares = sum(change.size for change in changes.values()), 0, {}
    for name in order:
        third = min(2, 3 * (before + changes[name].size // 2) // total)
        shares[name] = min(1.0, share * (1 + UNEVEN * (third - 1)))
        before += changes[name].size
    return shares
