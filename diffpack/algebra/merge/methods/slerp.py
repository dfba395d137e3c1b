"""SLERP: along the great circle from one tuned model to the other, tensor by tensor, as mergekit computes it.

Shoemake 1985, *Animating Rotation with Quaternion Curves*, section 3.3, on whole weights, of which the base is by far
the larger part. Where two tensors point in nearly the same direction, as fine-tunes of one base mostly do, the circle
is a line: mergekit's bound decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import acos, sin, sqrt

import numpy as np
import numpy.typing as npt

from diffpack.algebra.delta import Block, Delta, dense_row
from diffpack.algebra.merge.combine import Combined, combine, meetings
from diffpack.algebra.merge.method import Method
from diffpack.errors import UsageError
from diffpack.tensors.dtypes import to_float
from diffpack.tensors.info import blocks
from diffpack.tensors.reference import Reference

_COLLINEAR = 0.9995  # |cosine| above which the way is a line (mergekit's bound)
_NO_NORM = 1e-8  # a tensor whose norm is not above it is not made a unit vector (mergekit's bound)


def slerp(deltas: Sequence[Delta], reference: Reference, t: float) -> Iterator[Combined]:
    """Go the fraction `t` of the way from reference + first delta to reference + second delta."""
    first, second = _coefficients(deltas, reference, t)
    if first + second == 1:  # the reference stays, and so does what no delta changes
        yield from combine(deltas, (first, second), elect=None, normalize=False, scale=1.0)
        return
    for start, stop in blocks(deltas[0].entries):
        base, block = _block(deltas, reference, start, stop)
        values = (first + second - 1) * base + first * block.matrix[0] + second * block.matrix[1]
        yield Combined(block, values, *meetings(block.matrix))


def _coefficients(deltas: Sequence[Delta], reference: Reference, t: float) -> tuple[float, float]:
    """How much of each tuned tensor the result has. Raises `UsageError` for entries that are not finite."""
    squares, product = np.zeros(2), 0.0
    for start, stop in blocks(deltas[0].entries):
        base, block = _block(deltas, reference, start, stop)
        tuned = base + block.matrix
        squares += (tuned * tuned).sum(axis=1)
        product += float((tuned[0] * tuned[1]).sum())
    if not np.isfinite([*squares, product]).all():
        raise UsageError("slerp: a tensor has entries that are not finite, and no direction")
    norms = [sqrt(square) if sqrt(square) > _NO_NORM else 1.0 for square in squares.tolist()]
    cosine = max(-1.0, min(1.0, product / norms[0] / norms[1]))
    if abs(cosine) > _COLLINEAR:
        return 1 - t, t
    angle = acos(cosine)
    return sin((1 - t) * angle) / sin(angle), sin(t * angle) / sin(angle)


def _block(
    deltas: Sequence[Delta], reference: Reference, start: int, stop: int
) -> tuple[npt.NDArray[np.float64], Block]:
    """The reference in [start, stop), and what each delta adds there."""
    base = to_float(reference.slice(start, stop), reference.info.dtype).astype(np.float64)
    return base, Block(start, stop, None, np.stack([dense_row(delta, start, stop) for delta in deltas]))


METHOD = Method("slerp", "Shoemake 1985, doi 10.1145/325165.325242", options=("t",), between=slerp)
