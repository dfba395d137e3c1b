"""A record's factors as the one pair that PEFT has of a weight: left (rows, rank) and right (rank, columns)."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from diffpack.diff.record import TensorDiff
from diffpack.format.factors.line import INT
from diffpack.format.factors.product import Factors, MatrixFactors
from diffpack.format.values.floats import FLOATS
from diffpack.tensors.dtypes import DTYPES, DType, unordered

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Pair:
    """Words of a dtype, left (rows, rank) and right (rank, columns): the change is scale x their product."""

    dtype: DType
    left: Array
    right: Array
    scale: float

    @property
    def rank(self) -> int:
        """How many columns the left one has."""
        return int(self.left.shape[1])


def fits_pair(record: TensorDiff) -> bool:
    """Whether a record has factors that a pair of its weight can hold: of one matrix, or of several one below another.

    Matrices of experts are none: the weight's first dimension is not their rows.
    """
    if record.kind != "changed" or record.exact or record.rank == 0 or len(record.shape) < 2:
        return False
    factors = record.factors
    return factors is not None and factors.columns == prod(record.shape[1:])


def pair_of(factors: Factors) -> Pair:
    """The pair of a record that `fits_pair`: floats as they are stored, whole numbers as float32 with the scale in it.

    Several matrices become one of the sum of their ranks, each in rows of its own.
    """
    whole = factors.values == INT
    sides = [_weighed(matrix, float(factors.scale)) if whole else _stored(matrix) for matrix in factors.matrices]
    ranks = [matrix.rank for matrix in factors.matrices]
    left = np.zeros((factors.rows * len(sides), sum(ranks)), sides[0][0].dtype)
    for at, ((own, _), first) in enumerate(zip(sides, np.cumsum([0, *ranks]), strict=False)):
        left[at * factors.rows : (at + 1) * factors.rows, first : first + own.shape[1]] = own
    right = np.concatenate([other for _, other in sides])
    dtype = DTYPES["F32"] if whole else FLOATS[factors.values].stored
    return Pair(dtype, left, right, 1.0 if whole else float(factors.scale))


def _stored(matrix: MatrixFactors) -> tuple[Array, Array]:
    """The words of a matrix's float factors, as another tool stored them."""
    dtype = FLOATS[matrix.values].stored
    left, right = (unordered(side.reshape(-1), dtype).reshape(side.shape) for side in (matrix.left, matrix.right))
    return left.T, right


def _weighed(matrix: MatrixFactors, scale: float) -> tuple[Array, Array]:
    """The words of factors as float32, with weights and scale in them; those of a component are of like size.

    What they are brought to that by is a power of two, so nothing is rounded but the product with weight and scale.
    """
    left, right = (side.astype(np.float64) for side in (matrix.left, matrix.right))
    right *= matrix.weights[:, None] * scale
    norms = [np.linalg.norm(side, axis=1) for side in (left, right)]
    known = (norms[0] > 0) & (norms[1] > 0)
    ratio = np.divide(norms[1], norms[0], out=np.ones(matrix.rank), where=known)
    factor = np.exp2(np.rint(np.log2(ratio) / 2))[:, None]
    words = DTYPES["F32"].word
    pair = [np.ascontiguousarray(side, np.float32).view(words) for side in (left * factor, right / factor)]
    return pair[0].T, pair[1]
