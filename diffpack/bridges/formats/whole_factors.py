"""Factors of whole numbers for a product of thin matrices, as coarse as a wanted error allows.

The product is brought to its singular vectors. With both vectors of a component scaled by its singular value, an error
in either counts as much as one in the product, so all are rounded on one step: components of little weight take few
bits (reverse water-filling, Cover and Thomas, Elements of Information Theory, 10.3.3), and the weakest none.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from diffpack.format.factors.line import INT
from diffpack.format.factors.product import LARGEST_WEIGHT, Factors, MatrixFactors
from diffpack.format.values.grid import LIMIT

_TRIES = 8  # steps until the error is met; the forecast of it is near but for few numbers and large ones
_MARGIN = 0.98
_NOISE = 1e-14  # singular values below this part of the largest are rounding of float64
_LARGEST_SCALE = 2.0**100  # and the smallest is one over this: a step beyond is not kept as float32 accurately

Matrix = npt.NDArray[np.float64]


def whole_factors(left: Matrix, right: Matrix, scale: float, error: float) -> Factors | None:
    """Factors whose product misses at most `error` of scale x left (rows, rank) x right (rank, columns), in the
    Frobenius norm; None if int16 numbers are too coarse for that, or if the product is 0.

    On one machine the same matrices give the same numbers; LAPACK may differ on another.
    """  # noqa: D205 - one sentence
    own, values, other = _components(left, right, scale)
    total = float(values @ values)
    if not total or not 1 / _LARGEST_SCALE < values[0] < _LARGEST_SCALE:
        return None
    step = error * np.sqrt(12 * total / (values.size * (len(own) + len(other))))
    for _ in range(_TRIES):
        factors = _rounded(own, values, other, step)
        if factors is None:
            return None
        missed = _missed(factors, own, values, other) / np.sqrt(total)
        if missed <= error:
            return factors
        step *= _MARGIN * error / missed
    return None


def _components(left: Matrix, right: Matrix, scale: float) -> tuple[Matrix, Matrix, Matrix]:
    """Left (rows, rank) and right (columns, rank) singular vectors, and the singular values, of the product."""
    one, two = np.linalg.qr(left), np.linalg.qr(right.T)
    inner, values, outer = np.linalg.svd(scale * (one.R @ two.R.T))
    rank = int(np.count_nonzero(values > _NOISE * values.max(initial=0)))
    own, other = one.Q @ inner[:, :rank], two.Q @ outer[:rank].T
    signs = np.where(own[np.abs(own).argmax(axis=0), np.arange(rank)] < 0, -1.0, 1.0)
    return own * signs, values[:rank], other * signs


def _rounded(own: Matrix, values: Matrix, other: Matrix, step: float) -> Factors | None:
    """The components rounded on a step, or on the finest that int16 allows where that is coarser.

    Weights are whole, and what that takes from them, or adds, the numbers make up for.
    """
    rows, columns = len(own), len(other)
    kept = max(1, int(np.count_nonzero(values > step * np.sqrt((rows + columns) / 12))))
    own, values, other = own[:, :kept], values[:kept], other[:, :kept]
    largest = np.maximum(np.abs(own).max(axis=0), np.abs(other).max(axis=0))
    wanted = np.maximum(step * step / values, values * (largest / LIMIT) ** 2)  # size^2 x weight = value
    scale = np.float32(wanted.max() / LARGEST_WEIGHT)
    weights = np.clip(np.ceil(wanted / float(scale)), 1, LARGEST_WEIGHT)
    sizes = np.minimum(np.sqrt(values / (weights * float(scale))), LIMIT / largest)
    left, right = (np.ascontiguousarray(np.rint(side * sizes).T, np.int16) for side in (own, other))
    factors = Factors(rows, columns, scale, (MatrixFactors(INT, left, right, weights.astype(np.uint16)),))
    return factors if factors.fits else None


def _missed(factors: Factors, own: Matrix, values: Matrix, other: Matrix) -> float:
    """The Frobenius norm of the difference of both products, without making either."""
    (matrix,) = factors.matrices
    weights = matrix.weights * float(factors.scale)
    left = np.concatenate([own * values, -(matrix.left.T * weights)], axis=1)
    right = np.concatenate([other, matrix.right.T], axis=1)
    return float(np.linalg.norm(np.linalg.qr(left).R @ np.linalg.qr(right).R.T))
