"""Factors under an exact record: they come near to its change, and steps from there are smaller.

What factors leave of a change costs bits by how large it is against the last places of the tensor's words. So what a
unit of energy is worth follows from what is left, and the step the factors are quantised on from that, in turn.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np

from diffpack.extraction.encode.grid_quantiser import PRICE
from diffpack.extraction.lowrank.matrices import MatrixView, views
from diffpack.extraction.lowrank.record import LowRank
from diffpack.extraction.lowrank.spectrum import FIRST_RANK, SMALL_SIDE
from diffpack.extraction.lowrank.step_bits import StepBits
from diffpack.extraction.scan.scan import Scan
from diffpack.format.factors.product import Factors

_MOST = 128
"""The largest rank that is looked for: the best is 85 at most in the MiniLM pair, and a sketch of more takes long."""
_LEAST = 0.002
"""The part of a large matrix's bits that its first directions must save."""
_SAMPLE = 1 << 16  # words whose exponents are looked at
_SETTLED = 0.02
"""How little the step may still change, and the most rounds until then."""
_ROUNDS = 8


def predicting(scan: Scan, rank: int | None = None) -> tuple[Factors | None, float]:
    """The factors that are foretold to make a record's exact steps and themselves smallest, and the bits they take.

    They are of `rank` at most, if that is given. None if the tensor is no matrix, its changes are not all finite, or no
    direction pays.
    """
    most = _MOST if rank is None else rank
    seen = views(scan)
    if not seen or not most:
        return None, 0.0
    positions = np.linspace(0, scan.tuned.size - 1, min(_SAMPLE, scan.tuned.size)).astype(np.int64)
    bits = StepBits(scan.reference.at(positions), scan.pair.info.dtype)
    settled = (_settled(LowRank(view, most), bits) for view in seen if _promising(view, bits))
    best = min((found for found in settled if found is not None), key=lambda found: found.cost, default=None)
    return (None, 0.0) if best is None else best.way.alone(best.step)


@dataclass(frozen=True)
class _Settled:
    """A way to see a record, the step that suits what factors leave, and the bits of a word then and without them."""

    way: LowRank
    step: float
    cost: float
    plain: float


def _promising(view: MatrixView, bits: StepBits) -> bool:
    """Whether the first directions save enough that it is worth looking for more, where that takes long."""
    if min(view.rows, view.columns) <= SMALL_SIDE:
        return True
    first = _settled(LowRank(view, FIRST_RANK), bits)
    return first is not None and first.cost < (1 - _LEAST) * first.plain


def _settled(way: LowRank, bits: StepBits) -> _Settled | None:
    """Find the step at which factors are foretold to cost least, all together; None if none pays."""
    words = way.view.count * way.view.size
    if not np.isfinite(way.energy):
        return None

    def deviation(left: float) -> float:
        return left * sqrt(way.energy / words)

    plain = bits.of(deviation(1.0)) if way.energy else 0.0
    best: _Settled | None = None
    left, before = 1.0, 0.0
    for _ in range(_ROUNDS):
        worth = bits.a_unit(deviation(left)) if way.energy else 0.0
        if not 0 < worth < np.inf:
            break
        step = 1 / sqrt(PRICE * worth)
        if abs(step - before) <= _SETTLED * step:
            break
        foreseen = way.foreseen(step, alone=True)
        left, before = foreseen.left, step
        cost = foreseen.bits / words + bits.of(deviation(left))
        if cost < (plain if best is None else best.cost):
            best = _Settled(way, step, cost, plain)
    return best
