"""Changes of several diffs together, span by span: sums of steps, and changes moved into another shape."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from diffpack.diff.group_decoder import Changes
from diffpack.format.streams import Numbers
from diffpack.tensors.dtypes import DType, Positions
from diffpack.tensors.info import TensorInfo, blocks

_DENSE = 1 / 8
"""From this density on a block is summed in an array of all its words; sorting positions costs more (measured)."""
_KEPT_DENSE = 1 / 4
"""From this density on a sum stays an array of all words: 8 bytes a position would take more memory."""

Part = tuple[Positions | slice, Numbers]
"""Positions relative to the start of a range (a full slice for all of them), and their numbers."""


def aligned(layers: Sequence[Iterable[Changes]]) -> Iterator[tuple[int, int, list[Part]]]:
    """Walk through the changes of one tensor in several diffs at once: (start, stop, the part of each layer).

    Each layer covers the same words from 0 on; a range ends where a span of any layer does.
    """
    iterators = [iter(layer) for layer in layers]
    current = [next(iterator, None) for iterator in iterators]
    start = 0
    while True:
        present = [part for part in current if part is not None]
        if len(present) < len(current) or not present:
            return
        stop = min(part.stop for part in present)
        yield start, stop, [part.within(start, stop) for part in present]
        current = [
            next(iterator, None) if part.stop == stop else part
            for part, iterator in zip(present, iterators, strict=True)
        ]
        start = stop


def add_up(layers: Sequence[Iterable[Changes]], dtype: DType) -> Iterator[Changes]:
    """Add the steps of several layers, modulo 2^w."""
    for start, stop, parts in aligned(layers):
        sparse = not any(isinstance(index, slice) for index, _ in parts)
        if sparse and sum(numbers.size for _, numbers in parts) < _DENSE * (stop - start):
            yield _merged(start, stop, parts, dtype)
        else:
            for first, last in blocks(stop, start):
                yield _accumulated(first, last, [_cut(part, first - start, last - start) for part in parts], dtype)


def _cut(part: Part, start: int, stop: int) -> Part:
    index, numbers = part
    if isinstance(index, slice):
        return index, numbers[start:stop]
    low, high = np.searchsorted(index, [start, stop])
    return index[low:high] - start, numbers[low:high]


def _merged(start: int, stop: int, parts: list[Part], dtype: DType) -> Changes:
    """Add sparse parts by sorting their positions: runs that are sorted already merge in linear time."""
    places = np.concatenate([np.empty(0, np.int64), *(index for index, _ in parts if not isinstance(index, slice))])
    numbers = np.concatenate([np.empty(0, dtype.step), *(numbers for _, numbers in parts)])
    if len(parts) > 1 and places.size:
        order = np.argsort(places, kind="stable")
        places, numbers = places[order], numbers[order]
        first = np.flatnonzero(np.concatenate([[True], places[1:] != places[:-1]]))
        places, numbers = places[first], np.add.reduceat(numbers, first, dtype=numbers.dtype)  # else it widens
    return _without_zeros(start, stop, places, numbers)


def _accumulated(start: int, stop: int, parts: list[Part], dtype: DType) -> Changes:
    total = np.zeros(stop - start, dtype.step)
    for index, numbers in parts:
        total[index] += numbers  # positions of one part are unique
    count = int(np.count_nonzero(total))
    if count >= _KEPT_DENSE * total.size:
        return Changes(start, stop, None, total)
    places = np.flatnonzero(total)
    return Changes(start, stop, places + start, total[places])


def _without_zeros(start: int, stop: int, places: Positions, numbers: Numbers) -> Changes:
    if not numbers.all():
        kept = numbers != 0
        places, numbers = places[kept], numbers[kept]
    return Changes(start, stop, places + start, numbers)


def negated(layer: Iterable[Changes]) -> Iterator[Changes]:
    """Take every step back (modulo 2^w: the lowest number is its own negative)."""
    for part in layer:
        yield Changes(part.start, part.stop, part.positions, np.negative(part.numbers))


def moved(layer: Iterable[Changes], old: TensorInfo, new: TensorInfo) -> list[Changes]:
    """Move changes of a tensor into another shape, to the same indices; what is outside is left out.

    Takes the memory of the changes.
    """
    places, numbers = gathered(layer, old.dtype)
    if not new.words:
        return []
    per_entry = old.dtype.bits // old.dtype.word_bits  # 2 for complex numbers
    index = np.unravel_index(places // per_entry, old.shape) if places.size else ()
    kept = np.ones(places.size, np.bool_)
    for axis, limit in zip(index, new.shape, strict=False):
        kept &= axis < limit
    if not kept.any():
        return [Changes(0, new.words, np.empty(0, np.int64), numbers[:0])]
    inside = tuple(axis[kept] for axis in index)
    flat: npt.NDArray[np.int64] = np.ravel_multi_index(inside, new.shape) * per_entry + places[kept] % per_entry
    return [Changes(0, new.words, flat, numbers[kept])]  # C order of the indices is kept, so positions stay sorted


def gathered(layer: Iterable[Changes], dtype: DType) -> tuple[Positions, Numbers]:
    """All positions and numbers of a layer, without numbers that change nothing."""
    places, numbers = [np.empty(0, np.int64)], [np.empty(0, dtype.step)]
    for part in layer:
        changed = part.nonzero() if part.positions is None else part
        assert changed.positions is not None
        places.append(changed.positions)
        numbers.append(changed.numbers)
    return np.concatenate(places), np.concatenate(numbers)
