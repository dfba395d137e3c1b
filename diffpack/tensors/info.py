"""What is known of a tensor without reading it, and the blocks it is read in.

Long arrays are walked block by block, so that memory stays bounded and bytes are still in cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from diffpack.tensors.dtypes import DType


@dataclass(frozen=True)
class TensorInfo:
    """What is known of a tensor without reading it."""

    dtype: DType
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor's data."""
        return self.dtype.nbytes(self.shape)

    @property
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
