"""The float change of one tensor in one diff, and several of them side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from diffpack.tensors.dtypes import Positions
from diffpack.tensors.info import BLOCK_WORDS, blocks

Values = npt.NDArray[Any]  # 1-D, float32 or float64
Matrix = npt.NDArray[np.float64]  # (diffs, positions); 0 where a diff changes nothing


@dataclass(frozen=True)
class Delta:
    """What a diff adds to one tensor: values at sorted flat positions (None: at every entry)."""

    shape: tuple[int, ...]
    positions: Positions | None
    values: Values

    @property
    def entries(self) -> int:
        """Entries of the tensor."""
        return prod(self.shape)

    def keep(self, mask: npt.NDArray[np.bool_]) -> Delta:
        """The delta with only those of its values."""
        positions = np.flatnonzero(mask) if self.positions is None else self.positions[mask]
        return Delta(self.shape, positions, self.values[mask])

    def times(self, factor: float | npt.NDArray[np.float64]) -> Delta:
        """The delta multiplied by a number, or each value by its own, in float64."""
        return replace(self, values=self.values * np.float64(factor))

    def sparse(self) -> Delta:
        """The delta without values that are zero."""
        return self if self.positions is not None and self.values.all() else self.keep(self.values != 0)


@dataclass(frozen=True)
class Block:
    """The values of several deltas at the same places of [start, stop); `positions` None: at every entry of it."""

    start: int
    stop: int
    positions: Positions | None
    matrix: Matrix


def side_by_side(deltas: Sequence[Delta]) -> Iterator[Block]:
    """All values of deltas of one tensor, block by block, wherever any of them has one."""
    entries = deltas[0].entries
    if any(delta.positions is None for delta in deltas):
        for start, stop in blocks(entries):
            rows = [dense_row(delta, start, stop) for delta in deltas]
            yield Block(start, stop, None, np.stack(rows))
        return
    union = united([delta.positions for delta in deltas if delta.positions is not None])
    start = 0
    for first in range(0, max(union.size, 1), BLOCK_WORDS):
        places = union[first : first + BLOCK_WORDS]
        stop = entries if first + BLOCK_WORDS >= union.size else int(places[-1]) + 1
        if stop > start:
            yield Block(start, stop, places, np.stack([_row(delta, places, start, stop) for delta in deltas]))
        start = stop


def united(sets: Sequence[Positions]) -> Positions:
    """The sorted union of sorted positions."""
    if len(sets) == 1:
        return sets[0]
    merged = np.sort(np.concatenate(sets), kind="stable")  # runs that are sorted already merge in linear time
    first = np.ones(merged.size, np.bool_)
    np.not_equal(merged[1:], merged[:-1], out=first[1:])
    return merged[first]


def dense_row(delta: Delta, start: int, stop: int) -> npt.NDArray[np.float64]:
    """A delta's values at every entry of [start, stop)."""
    if delta.positions is None:
        return delta.values[start:stop].astype(np.float64)
    row = np.zeros(stop - start)
    low, high = np.searchsorted(delta.positions, [start, stop])
    row[delta.positions[low:high] - start] = delta.values[low:high]
    return row


def _row(delta: Delta, places: Positions, start: int, stop: int) -> npt.NDArray[np.float64]:
    assert delta.positions is not None
    row = np.zeros(places.size)
    low, high = np.searchsorted(delta.positions, [start, stop])
    row[np.searchsorted(places, delta.positions[low:high])] = delta.values[low:high]
    return row
