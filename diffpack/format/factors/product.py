"""What factors come to: the low-rank part of a record's change, in parts, with the same bits on every machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from diffpack.errors import CorruptFileError
from diffpack.format.factors.line import INT
from diffpack.format.streams import Numbers
from diffpack.format.values.floats import FLOATS

_EXACT_IN_FLOAT32 = 1 << 24
EXACT_IN_FLOAT64 = 1 << 53
"""Sums of products of whole numbers up to this are exact, in whatever order they are taken (rule U5)."""
_LARGEST = 2.0**127
_WORDS_AT_ONCE = 1 << 20
LARGEST_WEIGHT = 65535
"""Of a component: weights are uint16."""
Floats = npt.NDArray[Any]


@dataclass(frozen=True)
class MatrixFactors:
    """The factors of one matrix as they are stored: left (rank, rows), right (rank, columns), of int16 or of a float's
    ordered integers (`values`); weights (rank,), uint16, of whole numbers.
    """  # noqa: D205 - one sentence

    values: str
    left: Numbers
    right: Numbers
    weights: Numbers

    @property
    def rank(self) -> int:
        """How many components it has."""
        return len(self.left)

    @property
    def nbytes(self) -> int:
        """Bytes its arrays take in memory."""
        return self.left.nbytes + self.right.nbytes + self.weights.nbytes

    @cached_property
    def bound(self) -> float:
        """What no entry of the product, nor any part of its sum, exceeds; whole numbers have a whole one below 2^63."""
        if not self.rank:
            return 0.0
        left, right = (np.abs(side).max(axis=1) for side in self.plain)
        if self.values == INT:
            weighed: list[int] = (self.weights.astype(np.int64) * left * right).tolist()  # each below 2^46
            return sum(weighed)
        total = 0.0
        for a, b in zip(left.tolist(), right.tolist(), strict=True):
            total += a * b
        return total

    @property
    def plain(self) -> tuple[Floats, Floats]:
        """Left and right as numbers: int64, or float64."""
        if self.values == INT:
            return self.left.astype(np.int64), self.right.astype(np.int64)
        coding = FLOATS[self.values]
        left, right = (coding.differences(side.reshape(-1)).reshape(side.shape) for side in (self.left, self.right))
        return left.astype(np.float64), right.astype(np.float64)

    def wrong(self, scale: np.float32) -> str | None:
        """Say what the product, or the product times the scale, may not be; None if it is exact and finite."""
        if self.values == INT and self.bound > EXACT_IN_FLOAT64:
            return "exact"
        return None if self.bound * abs(float(scale)) < _LARGEST else "finite"

    def check(self, scale: np.float32, where: str) -> None:
        """Raise `CorruptFileError` (U5) unless the product is exact, and finite times the scale."""
        wrong = self.wrong(scale)
        if wrong:
            raise CorruptFileError(f"{where}: factors whose products may not be {wrong}", "U5")

    def arrays(self, scale: np.float32) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Left (rows, rank) and right (rank, columns), times weights and scale, as float32."""
        left, right = self.plain
        weighed = right * (self.weights[:, None] * np.float64(scale))
        return np.ascontiguousarray(left.T, np.float32), weighed.astype(np.float32)

    @cached_property
    def _operands(self) -> tuple[Floats, Floats]:
        """Left and right, its rows times their weights, without components that are 0, in the float type that does."""
        left, right = self.plain
        right = right * self.weights[:, None].astype(np.int64) if self.values == INT else right
        kept = np.flatnonzero(left.any(axis=1) & right.any(axis=1))
        narrow = self.values == INT and self.bound <= _EXACT_IN_FLOAT32
        kind = np.float32 if narrow else np.float64
        return left[kept].astype(kind), right[kept].astype(kind)

    def rows(self, which: slice | npt.NDArray[np.int64], scale: np.float32) -> npt.NDArray[np.float32]:
        """The low-rank change in some rows: float32 of that many rows, all columns."""
        left, right = self._operands
        left = left[:, which]
        if self.values == INT:
            product = left.T @ right
            if product.dtype == np.float32:  # whole, so its product with a float32 is exact in float64: rounded once
                changed: npt.NDArray[np.float32] = np.multiply(product, scale, out=product)
                return changed
        else:
            product = np.zeros((left.shape[1], right.shape[1]))
            for own, other in zip(left, right, strict=True):  # one order: these sums round
                product += own[:, None] * other
        product *= np.float64(scale)
        return product.astype(np.float32)


@dataclass(frozen=True)
class Factors:
    """The factors of a record: its words are matrices of `rows` x `columns`, one after the other; one scale for all."""

    rows: int
    columns: int
    scale: np.float32
    matrices: tuple[MatrixFactors, ...]

    @property
    def rank(self) -> int:
        """The largest rank of its matrices."""
        return max((matrix.rank for matrix in self.matrices), default=0)

    @property
    def values(self) -> str:
        """What its numbers are: "int", or a float's name."""
        return self.matrices[0].values

    @property
    def nbytes(self) -> int:
        """Bytes its arrays take in memory."""
        return sum(matrix.nbytes for matrix in self.matrices)

    def pairs(self) -> list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
        """For each matrix float32 arrays (rows, rank) and (rank, columns), of which the change is the product.

        To multiply with: their product is rounded otherwise than `change`, which applying adds.
        """
        return [matrix.arrays(self.scale) for matrix in self.matrices]

    @property
    def fits(self) -> bool:
        """Whether all products are exact and finite, as a diff's must be."""
        return not any(matrix.wrong(self.scale) for matrix in self.matrices)

    def check(self, where: str) -> None:
        """Raise `CorruptFileError` (U5) unless all products are exact and finite."""
        for matrix in self.matrices:
            matrix.check(self.scale, where)

    def change(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        """The low-rank change of words [start, stop), as float32 (1-D); 0 where a matrix has no component."""
        parts = [np.empty(0, np.float32), *self._parts(start, stop)]
        return np.concatenate(parts) if len(parts) != 2 else parts[1]

    def _parts(self, start: int, stop: int) -> Iterator[npt.NDArray[np.float32]]:
        size = self.rows * self.columns
        while start < stop:
            at, inside = divmod(start, size)
            end = min(stop - at * size, size)
            matrix = self.matrices[at]
            if matrix.rank:
                first, last = inside // self.columns, -(-end // self.columns)
                changed = matrix.rows(slice(first, last), self.scale).reshape(-1)
                yield changed[inside - first * self.columns : end - first * self.columns]
            else:
                yield np.zeros(end - inside, np.float32)
            start = at * size + end

    def change_at(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """The low-rank change of the words at sorted positions; their rows are made whole, some at a time."""
        parts = [np.empty(0, np.float32)]
        rows, columns = np.divmod(positions, self.columns)
        at_once = max(1, _WORDS_AT_ONCE // self.columns)
        start = 0
        while start < rows.size:
            matrix, first = divmod(int(rows[start]), self.rows)
            last = min(matrix * self.rows + first + at_once, (matrix + 1) * self.rows)
            stop = int(np.searchsorted(rows, last))
            own, places = np.unique(rows[start:stop] - matrix * self.rows, return_inverse=True)
            if self.matrices[matrix].rank:
                parts.append(self.matrices[matrix].rows(own, self.scale)[places, columns[start:stop]])
            else:
                parts.append(np.zeros(stop - start, np.float32))
            start = stop
        return np.concatenate(parts)
