"""From the values of several diffs at one place to one: weighted sums, with or without an election of the sign."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import fsum

import numpy as np
import numpy.typing as npt

from diffpack.algebra.delta import Block, Delta, Matrix, Values, side_by_side

NO_WEIGHT = 1e-8  # weights that add up to less do not normalise anything (mergekit's bound)


@dataclass(frozen=True)
class Combined:
    """The merged values of a block, and at how many places diffs met: `shared` by two or more, `conflicts` of sign."""

    block: Block
    values: Values
    shared: int
    conflicts: int


def combine(
    deltas: Sequence[Delta], weights: Sequence[float], *, elect: str | None, normalize: bool, scale: float
) -> Iterator[Combined]:
    """Merge deltas block by block.

    `elect` says how the sign of each place is elected: None, all values count; "weighted", values times weights are
    added up and those of the sum's sign count (a sum of 0 is positive); "plain", the same with the values themselves.
    `normalize` divides by the weights that counted.
    """
    column = np.array(weights, np.float64)[:, None]
    for block in side_by_side(deltas):
        shared, conflicts = meetings(block.matrix)
        weighted = block.matrix * column
        if elect is None:
            total, divisor = total_of(weighted), np.float64(fsum(weights))
            divisor = divisor if abs(divisor) >= NO_WEIGHT else np.float64(1)
            values = total / divisor if normalize else total
        else:
            agree = agreeing(weighted if elect == "weighted" else block.matrix, weighted)
            values = total_of(np.where(agree, weighted, 0.0))
            if normalize:
                divisors = total_of(np.where(agree, column, 0.0))
                values /= np.where(divisors == 0, 1.0, divisors)
        yield Combined(block, values * scale if scale != 1 else values, shared, conflicts)


def total_of(products: Matrix) -> npt.NDArray[np.float64]:
    """Add up the rows, in an order that depends on the numbers alone: the order of the diffs changes no bit."""
    several = np.flatnonzero(np.count_nonzero(products, axis=0) > 2)  # two numbers have one sum
    total: npt.NDArray[np.float64] = products.sum(axis=0)
    if several.size:
        total[several] = np.sort(products[:, several], axis=0).sum(axis=0)
    return total


def agreeing(votes: Matrix, values: Matrix) -> npt.NDArray[np.bool_]:
    """Mark values that have the sign elected by the sum of the votes (TIES-Merging, section 4.2: elect)."""
    positive = total_of(votes) >= 0
    return np.where(positive, values > 0, values < 0)


def meetings(matrix: Matrix) -> tuple[int, int]:
    """Count places where two or more diffs change something, and those of them where signs differ."""
    up, down = (matrix > 0).sum(axis=0), (matrix < 0).sum(axis=0)
    return int(np.count_nonzero(up + down > 1)), int(np.count_nonzero((up > 0) & (down > 0)))
