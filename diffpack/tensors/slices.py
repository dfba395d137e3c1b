"""Tensors put together from slices of others: three projections in one matrix, experts in one stack, and back.

Specification, section 6, step 2. A slice is a run of a tensor's entries in C order, where `swapped` of the tensor with
its last two dimensions exchanged. An assembly is its slices one after the other, read the same way.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from typing import Any, NamedTuple

import numpy as np

from diffpack.support.cache import Cache
from diffpack.tensors.dtypes import Positions, Words
from diffpack.tensors.info import TensorInfo
from diffpack.tensors.word_source import WordSource

SMALLEST_BITS = 8
"""Entries of fewer bits are packed in words, which are not cut."""
_KEPT_BYTES = 256 << 20


class Slice(NamedTuple):
    """`entries` entries of the tensor `source` from entry `first` on."""

    source: str
    swapped: bool
    first: int
    entries: int


@dataclass(frozen=True)
class Assembly:
    """The shape of a tensor, and the slices that are its entries in C order.

    Where it is `swapped` they are those of the tensor with its last two dimensions exchanged.
    """

    shape: tuple[int, ...]
    swapped: bool
    pieces: tuple[Slice, ...]

    @property
    def sources(self) -> list[str]:
        """The tensors that slices are taken of, each once, in order of their first slice."""
        return list(dict.fromkeys(piece.source for piece in self.pieces))

    def renamed(self, names: Mapping[str, str]) -> Assembly:
        """The same of sources that are called otherwise."""
        pieces = tuple(piece._replace(source=names[piece.source]) for piece in self.pieces)
        return Assembly(self.shape, self.swapped, pieces)

    def info(self, sources: Mapping[str, TensorInfo]) -> TensorInfo | None:
        """Dtype and shape of what it makes of these tensors; None if they are not what it can be made of."""
        infos = [sources.get(piece.source) for piece in self.pieces]
        dtypes = {info.dtype for info in infos if info is not None}
        if None in infos or len(dtypes) != 1:
            return None
        for piece, info in zip(self.pieces, infos, strict=True):
            assert info is not None
            inside = piece.first + piece.entries <= prod(info.shape) and len(info.shape) >= 2 * piece.swapped
            if not inside or info.dtype.bits < SMALLEST_BITS:
                return None
        return TensorInfo(dtypes.pop(), self.shape)


def exchanged(shape: Sequence[int]) -> tuple[int, ...]:
    """A shape with its last two dimensions exchanged."""
    return (*shape[:-2], shape[-1], shape[-2])


class Turned:
    """Tensors with their last two dimensions exchanged, kept while there is room; assemblies of one base share it."""

    def __init__(self) -> None:
        self._kept: Cache[str | AssembledWords, Words] = Cache(lambda words: words.nbytes, _KEPT_BYTES)

    def get(self, key: str | AssembledWords, make: Callable[[], Words]) -> Words:
        """What was turned under a key, by `make` if it is not kept."""
        return self._kept.get(key, make)


class AssembledWords:
    """The words of an assembly, read part by part from those of its sources.

    `info` is what it makes; `infos` and `words` are those of its sources. Slices as they are stored are read in place;
    a swapped source, and a swapped assembly, is turned as a whole, which takes the memory of that tensor.
    """

    def __init__(
        self,
        assembly: Assembly,
        info: TensorInfo,
        infos: Mapping[str, TensorInfo],
        words: Mapping[str, WordSource],
        turned: Turned,
    ) -> None:
        per_entry = info.dtype.bits // info.dtype.word_bits  # 2 for complex numbers
        self.size = info.words
        self.dtype: np.dtype[Any] = info.dtype.word
        self._assembly = assembly
        self._per_entry = per_entry
        self._infos = infos
        self._words = words
        self._starts = list(accumulate((piece.entries * per_entry for piece in assembly.pieces), initial=0))[:-1]
        self._turned = turned

    def __getitem__(self, part: slice | Positions, /) -> Words:
        """The words of a slice of step 1, or at positions, to be read only."""
        if self._assembly.swapped:
            return self._turned_whole()[part]
        if isinstance(part, slice):
            start, stop, _ = part.indices(self.size)
            return self._run(start, stop)
        return self._at(part)

    def _run(self, start: int, stop: int) -> Words:
        """The words [start, stop) of the slices one after the other."""
        found = []
        at = bisect_right(self._starts, start) - 1
        while start < stop:
            source, offset, end = self._piece(at)
            upto = min(stop, end)
            found.append(source[start - offset : upto - offset])
            start, at = upto, at + 1
        if len(found) == 1:
            return found[0]
        return np.concatenate(found) if found else np.empty(0, self.dtype)

    def _at(self, positions: Positions) -> Words:
        """The words at positions of the slices one after the other."""
        result = np.empty(positions.size, self.dtype)
        pieces = np.searchsorted(self._starts, positions, side="right") - 1
        for at in np.unique(pieces):
            source, offset, _ = self._piece(int(at))
            mine = pieces == at
            result[mine] = source[positions[mine] - offset]
        return result

    def _piece(self, at: int) -> tuple[WordSource, int, int]:
        """A slice's source, what to take from a position here to have one there, and where the slice ends here."""
        piece, start = self._assembly.pieces[at], self._starts[at]
        source = self._turned_source(piece.source) if piece.swapped else self._words[piece.source]
        return source, start - piece.first * self._per_entry, start + piece.entries * self._per_entry

    def _turned_source(self, name: str) -> Words:
        words = self._words[name]
        return self._turned.get(name, lambda: self._turn(words[0 : words.size], self._infos[name].shape))

    def _turned_whole(self) -> Words:
        return self._turned.get(self, lambda: self._turn(self._run(0, self.size), exchanged(self._assembly.shape)))

    def _turn(self, words: Words, shape: Sequence[int]) -> Words:
        """Words of an array of a shape, with its last two dimensions exchanged."""
        return np.ascontiguousarray(words.reshape(*shape, self._per_entry).swapaxes(-2, -3)).reshape(-1)
