"""The matrices a tensor's change is seen as, and the change itself, a few rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np
import numpy.typing as npt

from diffpack.extraction.scan.scan import Scan
from diffpack.format.values import floats

Block = npt.NDArray[np.float32]
_NARROWEST = 16
"""Rows and columns a matrix needs: below it a component takes more than a tenth of the entries it stands for."""
_BLOCK_WORDS = 1 << 22
_EXPERT = 64
"""Rows and columns from which on the matrices behind a first dimension are each a matrix of their own (experts)."""
_PROJECTIONS = 3
"""Queries, keys and values, one below the other."""


@dataclass(frozen=True)
class MatrixView:
    """A tensor's words as `count` matrices of rows x columns, one after the other (C order)."""

    scan: Scan
    count: int
    rows: int
    columns: int

    @property
    def size(self) -> int:
        """Entries of one matrix."""
        return self.rows * self.columns

    def change(self, matrix: int, first: int, last: int) -> Block:
        """The differences tuned - reference in rows [first, last) of a matrix, as float32 (infinite beyond it)."""
        start = matrix * self.size + first * self.columns
        stop = matrix * self.size + last * self.columns
        before, after = self.scan.reference.slice(start, stop), self.scan.tuned[start:stop]
        moved = floats.difference(before, after, self.scan.pair.info.dtype)
        with np.errstate(over="ignore"):
            return moved.astype(np.float32, copy=False).reshape(last - first, self.columns)

    @cached_property
    def energy(self) -> float:
        """The sum of squares of all change; not finite if a difference is not, or none that float32 holds."""
        blocks = (block for matrix in range(self.count) for _, _, block in self.blocks(matrix))
        with np.errstate(over="ignore", invalid="ignore"):
            return float(sum(np.vdot(block, block).real for block in blocks))

    def blocks(self, matrix: int) -> Iterator[tuple[int, int, Block]]:
        """The whole change of a matrix as (first row, last row, differences), in blocks of bounded size."""
        step = max(1, _BLOCK_WORDS // self.columns)
        for first in range(0, self.rows, step):
            last = min(first + step, self.rows)
            yield first, last, self.change(matrix, first, last)


def views(scan: Scan) -> list[MatrixView]:
    """The ways to see a tensor as matrices, the plain one first; none if it is no matrix worth it.

    Of more than two dimensions: (first) x (rest), or each item of the first dimension on its own, as experts are.
    Of three square ones in one: each on its own, too.
    """
    shape = scan.pair.info.shape
    if len(shape) < 2:
        return []
    ways = [(1, shape[0], prod(shape[1:]))]
    if len(shape) > 2 and min(shape[1], prod(shape[2:])) >= _EXPERT:
        ways.append((shape[0], shape[1], prod(shape[2:])))
    if len(shape) == 2 and shape[0] == _PROJECTIONS * shape[1]:
        ways.append((_PROJECTIONS, shape[1], shape[1]))
    return [MatrixView(scan, *way) for way in ways if min(way[1:]) >= _NARROWEST]
