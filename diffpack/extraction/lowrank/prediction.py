"""Factors under an exact record: they come near to its change, and steps from there are smaller.

What factors leave of a change costs bits by how large it is against the last places of the tensor's words. So what a
unit of energy is worth follows from what is left, and the step the factors are quantised on from that, in turn.
"""

from __future__ import annotations

from math import sqrt

import numpy as np

from diffpack.extraction.encode.grid_quantiser import PRICE
from diffpack.extraction.lowrank.matrices import views
from diffpack.extraction.lowrank.record import LowRank
from diffpack.extraction.lowrank.step_bits import StepBits
from diffpack.extraction.scan.scan import Scan
from diffpack.format.factors.product import Factors

_MOST = 128
"""The largest rank that is looked for: the best is 85 at most in the MiniLM pair, and a sketch of more takes long."""
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
    ways = [way for view in views(scan) if np.isfinite((way := LowRank(view, most)).energy)]
    if not ways or not most:
        return None, 0.0
    positions = np.linspace(0, scan.tuned.size - 1, min(_SAMPLE, scan.tuned.size)).astype(np.int64)
    bits = StepBits(scan.reference.at(positions), scan.pair.info.dtype)
    cost, step, way = min((_settled(way, bits) for way in ways), key=lambda found: found[0])
    return way.alone(step) if cost < bits.of(_deviation(way, 1.0)) * scan.tuned.size else (None, 0.0)


def _deviation(way: LowRank, left: float) -> float:
    return left * sqrt(way.energy / (way.view.count * way.view.size))


def _settled(way: LowRank, bits: StepBits) -> tuple[float, float, LowRank]:
    """What a way to see a record is foretold to cost in bits, all together, at the step that suits what it leaves."""
    words = way.view.count * way.view.size
    left, best = 1.0, (np.inf, np.inf)
    before = 0.0
    for _ in range(_ROUNDS):
        worth = bits.a_unit(_deviation(way, left)) if way.energy else 0.0
        if not 0 < worth < np.inf:
            break
        step = 1 / sqrt(PRICE * worth)
        if abs(step - before) <= _SETTLED * step:
            break
        foreseen = way.foreseen(step, alone=True)
        left, before = foreseen.left, step
        best = min(best, (foreseen.bits + bits.of(_deviation(way, left)) * words, step))
    return *best, way
