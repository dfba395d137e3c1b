"""Two thin factors of a matrix: its singular vectors, as many as stand out of rounding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_OVERSAMPLED = 16
"""Columns a sketch has beyond the rank that is looked for (Halko, Martinsson and Tropp 2011, section 4.2: 5 to 10)."""
_ROUNDS = 2  # of power iteration: singular values that fall slowly are told apart (there, algorithm 4.4)
_DENSE = 4  # below this many times the sketch's columns, all singular values cost no more
_SEED = 0  # of the sketch: the same matrix gives the same factors

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LowRank:
    """left (rows, rank) x right (rank, columns), both float32; `error` is what they miss, in the Frobenius norm."""

    left: npt.NDArray[np.float32]
    right: npt.NDArray[np.float32]
    error: float

    @property
    def rank(self) -> int:
        """How many columns and rows the factors have."""
        return int(self.left.shape[1])

    def product(self) -> Matrix:
        """The product in float64."""
        return self.left.astype(np.float64) @ self.right.astype(np.float64)


def low_rank(matrix: Matrix, noise: float, most: int) -> LowRank:
    """The factors of the smallest rank that misses no more than `noise`, and of rank `most` if that is not enough.

    The rank is at least 1. `noise` and the error are Frobenius norms.
    """
    left, values, right = _singular(matrix, most)
    total = float(np.sum(matrix * matrix))
    missed = np.sqrt(np.maximum(total - np.cumsum(values * values), 0))
    enough = np.flatnonzero(missed <= noise)
    rank = int(enough[0]) + 1 if enough.size else values.size
    roots = np.sqrt(values[:rank])
    signs = np.where(left[np.abs(left[:, :rank]).argmax(axis=0), np.arange(rank)] < 0, -1.0, 1.0)
    found = LowRank(
        (left[:, :rank] * (roots * signs)).astype(np.float32),
        (right[:rank] * (roots * signs)[:, None]).astype(np.float32),
        0.0,
    )
    return LowRank(found.left, found.right, float(np.linalg.norm(matrix - found.product())))


def _singular(matrix: Matrix, most: int) -> tuple[Matrix, Matrix, Matrix]:
    """The largest singular values, up to `most` of them, and their vectors."""
    columns = most + _OVERSAMPLED
    basis: Matrix | None = None
    if min(matrix.shape) > _DENSE * columns:
        drawn = np.random.default_rng(_SEED).standard_normal((matrix.shape[1], columns))
        basis = np.linalg.qr(matrix @ drawn).Q
        for _ in range(_ROUNDS):
            basis = np.linalg.qr(matrix @ np.linalg.qr(matrix.T @ basis).Q).Q
    left, values, right = np.linalg.svd(matrix if basis is None else basis.T @ matrix, full_matrices=False)
    return (left if basis is None else basis @ left)[:, :most], values[:most], right[:most]
