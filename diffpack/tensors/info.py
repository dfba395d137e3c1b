"""What is known of a tensor without reading it, and the blocks it is read in.

Long arrays are walked block by block, so that memory stays bounded and bytes are still in cache.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from diffpack.support.found_once import found_once
from diffpack.tensors.dtypes import DType


@dataclass(frozen=True)
class TensorInfo:
    """What is known of a tensor without reading it."""

    dtype: DType
    shape: tuple[int, ...]

    def __hash__(self) -> int:
        return self._hash

    @found_once
    def _hash(self) -> int:
        return hash((self.dtype.name, self.shape))

    @found_once
    def nbytes(self) -> int:
        """Bytes of the tensor's data."""
        return self.dtype.nbytes(self.shape)

    @found_once
    def words(self) -> int:
        """Words of the tensor's data."""
        return self.dtype.words(self.shape)

    def __str__(self) -> str:
        return f"{self.dtype.name}{list(self.shape)}"


BLOCK_WORDS = 1 << 18
"""1 MiB of float32: hashing, comparing and copying it touch memory once (measured best from 2^16 to 2^19)."""


def blocks(words: int, start: int = 0) -> Iterator[tuple[int, int]]:
    """Cut [start, words) into consecutive (start, stop) of at most `BLOCK_WORDS`."""
    for begin in range(start, words, BLOCK_WORDS):
        yield begin, min(begin + BLOCK_WORDS, words)


_RUN_TENSORS = 1 << 12
"""Tensors of a run at most, since each takes some memory while it lasts: two kilobytes to be hashed."""


def runs(tensors: Iterable[TensorInfo], most: int = BLOCK_WORDS) -> Iterator[slice]:
    """Cut tensors, in order, into runs to be worked on together: small ones of one dtype, `most` words; or one."""
    start = words = at = 0
    before: DType | None = None
    for at, info in enumerate(tensors):
        if at > start and (info.dtype != before or words + info.words > most or at - start >= _RUN_TENSORS):
            yield slice(start, at)
            start, words = at, 0
        before = info.dtype
        words += info.words
    if before is not None:
        yield slice(start, at + 1)


def parts_of(line: Sequence[int], start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """The parts of a line's words [start, stop): which tensor, and from where to where on the line.

    `line` says where each tensor begins, and where the last one ends. Tensors without words are in no part.
    """
    at = bisect_right(line, start) - 1
    while start < stop:
        end = min(stop, line[at + 1])
        if end > start:
            yield at, start, end
        start, at = end, at + 1
