"""The leading singular vectors of a matrix's change, as many as are asked for, in bounded memory.

A small side: by the eigenvectors of the Gram matrix. Else a randomised range finder with power iterations (Halko,
Martinsson and Tropp 2011, algorithm 4.4), which reads the change in blocks of rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from diffpack.extraction.lowrank.matrices import MatrixView

Floats = npt.NDArray[np.float32]
SMALL_SIDE = 1024
"""Up to this side all eigenvectors of the Gram matrix are had in a fifth of a second, as fast as 24 by a sketch."""
FIRST_RANK = 24
_OVERSAMPLED = 8
_POWER_ITERATIONS = 2
"""Of fine-tunes' spectra, which fall slowly: with 1 the last singular values come out 3 % too small."""
_WHOLE_SHARE = 4
"""From a rank of 1 / 4 of the side on all of them cost less than a sketch."""
_SPARE = 4.0
"""How much finer than asked is kept: a search that comes back with a smaller step need not begin again."""
_SEED = 0
_NOISE = 1e-3
"""Of the largest singular value: below it a float32 Gram matrix holds rounding."""


@dataclass(frozen=True)
class Components:
    """Left (rank, rows) and right (rank, columns) singular vectors, and the singular values, largest first."""

    left: Floats
    values: npt.NDArray[np.float64]
    right: Floats

    def first(self, rank: int) -> Components:
        """The leading ones."""
        return Components(self.left[:rank], self.values[:rank], self.right[:rank])


class Spectrum:
    """The singular vectors of one matrix of a view, found as far as they are asked for. For one thread at a time.

    `most` is the largest rank that is ever wanted. Of a matrix with a small side the vectors of that side are kept,
    those of the other are made when they are asked for.
    """

    def __init__(self, view: MatrixView, matrix: int, most: int) -> None:
        self._view = view
        self._matrix = matrix
        self._most = min(most, view.rows, view.columns)
        self._found: Components | None = None
        self._known = np.inf  # squared singular values from here on up are found

    def values_above(self, limit: float) -> npt.NDArray[np.float64]:
        """The singular values whose square is at least `limit`, largest first."""
        found = self._sketch(limit)
        return _from(self._eigen[0] if found is None else found.values, limit)

    def above(self, limit: float) -> Components:
        """The components whose squared singular value is at least `limit`."""
        found = self._sketch(limit)
        if found is None:
            return self._projected(limit)
        return found.first(_from(found.values, limit).size)

    def _sketch(self, limit: float) -> Components | None:
        """A sketch that holds all components from `limit` on; None where all of them cost less."""
        side = min(self._view.rows, self._view.columns)
        if side <= SMALL_SIDE or limit >= self._known:
            return self._found
        rank = FIRST_RANK if self._found is None else 2 * self._found.values.size
        found = None
        while rank < side / _WHOLE_SHARE:
            found = self._sketched(min(rank, self._most))
            if rank >= self._most or found.values[-1] ** 2 < limit / _SPARE:
                break
            found, rank = None, 2 * rank
        self._found, self._known = found, limit / _SPARE if found is not None else 0.0
        return found

    def _sketched(self, rank: int) -> Components:
        width = rank + _OVERSAMPLED
        start = np.random.default_rng(_SEED).standard_normal((self._view.columns, width), np.float32)
        basis, across = self._range(start)
        for _ in range(_POWER_ITERATIONS):
            basis, across = self._range(np.linalg.qr(across)[0])
        right, values, mixed = np.linalg.svd(across, full_matrices=False)
        left = mixed @ basis.T
        return Components(left[:rank], values[:rank].astype(np.float64), np.ascontiguousarray(right.T[:rank]))

    def _range(self, of: Floats) -> tuple[Floats, Floats]:
        """An orthonormal basis (rows, width) of the change times `of`, and the change's transpose times it."""
        view, matrix = self._view, self._matrix
        basis = np.linalg.qr(np.concatenate([block @ of for _, _, block in view.blocks(matrix)]))[0]
        across = np.zeros((view.columns, basis.shape[1]), np.float32)
        for first, last, block in view.blocks(matrix):
            across += block.T @ basis[first:last]
        return basis, across

    @cached_property
    def _eigen(self) -> tuple[npt.NDArray[np.float64], Floats]:
        """All singular values but those of rounding, and the vectors of the smaller side, by its Gram matrix."""
        view, matrix = self._view, self._matrix
        if view.rows >= view.columns:
            gram = np.zeros((view.columns, view.columns))
            for _, _, block in view.blocks(matrix):
                gram += block.T @ block
        else:
            whole = view.change(matrix, 0, view.rows)
            gram = (whole @ whole.T).astype(np.float64)
        squares, vectors = np.linalg.eigh(gram)
        values: npt.NDArray[np.float64] = np.sqrt(np.maximum(squares[::-1], 0.0)).astype(np.float64)
        kept = min(self._most, int(np.count_nonzero(values > values[:1] * _NOISE)))
        return values[:kept], np.ascontiguousarray(vectors[:, ::-1].T[:kept], np.float32)

    def _projected(self, limit: float) -> Components:
        """The components from a squared singular value on, of the eigenvectors of the smaller side."""
        view, matrix = self._view, self._matrix
        values = _from(self._eigen[0], limit)
        own = self._eigen[1][: values.size]
        if view.rows >= view.columns:
            other = np.concatenate([own @ block.T for _, _, block in view.blocks(matrix)], axis=1)
            other /= values[:, None].astype(np.float32)
            return Components(other, values, own)
        other = own @ view.change(matrix, 0, view.rows)
        other /= values[:, None].astype(np.float32)
        return Components(own, values, other)


def _from(values: npt.NDArray[np.float64], limit: float) -> npt.NDArray[np.float64]:
    return values[: int(np.count_nonzero(values**2 >= limit))]
