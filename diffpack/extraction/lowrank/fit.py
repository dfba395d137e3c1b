"""Factors of a matrix at a step: the components that pay, quantised, fitted to one another, and their weights.

With a component's vectors scaled by its singular value an error in them counts as much as one in the matrix, so both
are quantised on the step that the matrix's own entries would have, at the same price of a bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from diffpack.extraction.encode.grid_quantiser import PRICE
from diffpack.extraction.lowrank.entropy import quantise_rows
from diffpack.extraction.lowrank.spectrum import Components
from diffpack.format.factors.product import LARGEST_WEIGHT
from diffpack.format.streams import Numbers
from diffpack.format.values.grid import LIMIT

COMPONENT_BITS = 24.0
"""What a component costs beside its numbers: a weight and two levels."""
LEAST_BITS = 0.5
"""Bits an entry of the weakest component that may pay costs at least."""
_ALTERNATE = 24
"""From this rank on left and right are fitted to each other once more: 1 to 2 % fewer bytes at rank 60 to 200
(MiniLM pair), under 0.5 % at rank 10."""
_ROUNDS = 1
_RIDGE = 1e-6
"""Of the mean square: products are taken in float32."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Fitted:
    """Factors of a matrix: left (rank, rows) and right (rank, columns), int16, in steps; weights (rank,).

    `bits` is what they are estimated to take, `sizes` (rank,) the weights that whole ones should have at least.
    """

    left: Numbers
    right: Numbers
    weights: Floats
    bits: float
    sizes: Floats

    @property
    def rank(self) -> int:
        """How many components it has."""
        return len(self.left)


def fit(found: Components, step: float, worth: float, *, alternate: bool = True) -> Fitted:
    """Quantise the components that pay at a step; `found` are all that may.

    `worth` is what energy taken out of the matrix is worth: the part of it that the grid would leave. With `alternate`
    many components are fitted once more, left to right and back, which takes as long again.
    """
    if not found.values.size:
        return Fitted(found.left.astype(np.int16), found.right.astype(np.int16), np.empty(0), 0.0, np.empty(0))
    own_step = _own_step(found, step)
    size = (found.values[:, None] / own_step).astype(np.float32)
    left, left_bits = quantise_rows(found.left * size)
    right, right_bits = quantise_rows(found.right * size)
    norms = _squares(left) * _squares(right)
    met = found.values * _dots(left, found.left) * _dots(right, found.right)
    gains = np.divide(met * met, norms, out=np.zeros_like(norms), where=norms > 0)
    bits = left_bits + right_bits + COMPONENT_BITS
    kept = np.flatnonzero((gains * worth > PRICE * step * step * bits) & (met > 0))
    left, right, bits = left[kept], right[kept], bits[kept]
    weights = met[kept] / norms[kept]
    if alternate and kept.size >= _ALTERNATE:
        for _ in range(_ROUNDS):
            right, right_bits = quantise_rows(_opposite(found, left, weights))
            left, left_bits = quantise_rows(_opposite(_turned(found), right, weights))
        bits = left_bits + right_bits + COMPONENT_BITS
    weights = _joint_weights(found, left, right, weights)
    kept = np.flatnonzero((weights > 0) & left.any(axis=1) & right.any(axis=1))
    left, right, weights = left[kept], right[kept], weights[kept]
    norms = weights * np.sqrt(_squares(left) * _squares(right))
    sizes = norms / (own_step * np.sqrt(_ROUNDING * (left.shape[1] + right.shape[1])))
    return Fitted(left, right, weights, float(bits[kept].sum()), sizes)


def whole_weights(parts: Sequence[Fitted]) -> tuple[list[Numbers], np.float32]:
    """Weights of several matrices as uint16, and the scale they are multiples of.

    It is as coarse as keeps what their rounding misses small beside what that of the numbers does.
    """
    weights = np.concatenate([part.weights for part in parts])
    finest = np.concatenate([part.weights / np.maximum(part.sizes, _LEAST_WEIGHT) for part in parts]).min()
    scale = np.float32(max(finest, weights.max() / LARGEST_WEIGHT))
    whole = [np.clip(np.rint(part.weights / scale), 1, LARGEST_WEIGHT).astype(np.uint16) for part in parts]
    return whole, scale


_LEAST_WEIGHT = 8
_ROUNDING = 0.02
"""The part of a component's squared error that rounding its weight may add."""


def _own_step(found: Components, step: float) -> float:
    """The step, or a coarser one on which all entries of the scaled vectors are int16."""
    largest = max(float((found.values * np.abs(side).max(axis=1)).max()) for side in (found.left, found.right))
    return max(step, largest / (LIMIT - 1))


def _squares(rows: Numbers) -> Floats:
    return _dots(rows, rows)


def _dots(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> Floats:
    """The dot product of each row of one array with that of another."""
    products = one.astype(np.float32) * other.astype(np.float32, copy=False)
    result: Floats = products.sum(axis=1, dtype=np.float64)
    return result


def _products(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> Floats:
    """The dot product of each row of one array with each of another."""
    result: Floats = (one.astype(np.float32) @ other.astype(np.float32, copy=False).T).astype(np.float64)
    return result


def _turned(found: Components) -> Components:
    return Components(found.right, found.values, found.left)


def _opposite(found: Components, left: Numbers, weights: Floats) -> npt.NDArray[np.float32]:
    """The right factor, in steps, that suits a quantised left one best: least squares against the components."""
    gram = _products(left, left) * weights * weights[:, None]
    seen = _products(left, found.left) * weights[:, None] * found.values
    best: npt.NDArray[np.float32] = np.linalg.solve(_ridged(gram), seen).astype(np.float32) @ found.right
    return best


def _joint_weights(found: Components, left: Numbers, right: Numbers, weights: Floats) -> Floats:
    """The weights that suit both quantised factors best, all together; those given where there is nothing to choose."""
    if not weights.size:
        return weights
    gram = _products(left, left) * _products(right, right)
    met = (_products(left, found.left) * found.values * _products(right, found.right)).sum(axis=1)
    result: Floats = np.linalg.solve(_ridged(gram), met)
    return result


def _ridged(gram: Floats) -> Floats:
    ridged: Floats = gram + _RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram))
    return ridged
