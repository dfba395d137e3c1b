"""Blocks: how long arrays are walked so that memory stays bounded and bytes are still in cache."""

from __future__ import annotations

from collections.abc import Iterator

BLOCK_WORDS = 1 << 18
"""1 MiB of float32: hashing, comparing and copying it touch memory once (measured best from 2^16 to 2^19)."""


def blocks(words: int, start: int = 0) -> Iterator[tuple[int, int]]:
    """Cut [start, words) into consecutive (start, stop) of at most `BLOCK_WORDS`."""
    for begin in range(start, words, BLOCK_WORDS):
        yield begin, min(begin + BLOCK_WORDS, words)
