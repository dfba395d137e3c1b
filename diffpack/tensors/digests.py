"""Content hashes: of a tensor, of all tensors together, of a small file."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from itertools import pairwise

from blake3 import blake3

from diffpack.tensors.dtypes import Words
from diffpack.tensors.info import TensorInfo, blocks
from diffpack.tensors.word_source import WordSource

_PREFIX = b"diffpack fingerprint 1\n"
DIGEST_BYTES = 16
"""Bytes of a tensor's digest that a diff keeps."""


def tensor_digest(words: WordSource) -> bytes:
    """BLAKE3 (32 bytes) of a tensor's bytes, read block by block."""
    hasher = blake3()
    for start, stop in blocks(words.size):
        hasher.update(words[start:stop].view("u1").data)
    return hasher.digest()


def part_digests(words: Words, line: Sequence[int]) -> list[bytes]:
    """BLAKE3 (32 bytes) of each part of words in memory; `line` says where each begins, and where the last one ends."""
    data, width = words.view("u1").data, words.itemsize
    return [blake3(data[start * width : stop * width]).digest() for start, stop in pairwise(line)]


class PairHasher:
    """BLAKE3 of a tensor and of the base tensor beside it, fed block by block while the bytes are in cache.

    `base` are the words of the base tensor (None: there is none), which may be fewer or more than the tensor's.
    `own` false leaves the tensor itself out.
    """

    def __init__(self, base: WordSource | None, *, own: bool = True) -> None:
        self._base = base
        self._own = blake3() if own else None
        self._of_base = None if base is None else blake3()

    def update(self, start: int, words: Words, before: Words | None = None) -> None:
        """Take the words of the tensor that begin at `start`; each word once, in order.

        `before` are the base tensor's words there, where the caller has them; else they are read.
        """
        if self._base is not None and self._of_base is not None:  # a smaller base tensor just ends earlier
            read = self._base[start : start + words.size] if before is None else before
            self._of_base.update(read.view("u1").data)
        if self._own is not None:
            self._own.update(words.view("u1").data)

    def digests(self, words: int) -> tuple[bytes | None, bytes | None]:
        """Both digests (32 bytes; of the tensor, of the base tensor) after all `words` of the tensor were seen."""
        if self._base is not None and self._of_base is not None:
            for start, stop in blocks(self._base.size, words):
                self._of_base.update(self._base[start:stop].view("u1").data)
        own = None if self._own is None else self._own.digest()
        return own, None if self._of_base is None else self._of_base.digest()


def combine(tensors: Mapping[str, TensorInfo], digests: Mapping[str, bytes]) -> str:
    """The fingerprint (64 hex digits) of tensors whose digests are known (specification, section 8)."""
    kinds: dict[TensorInfo, bytes] = {}  # how dtype and shape are written: of tens of thousands of tensors few kinds
    parts = [_PREFIX, struct.pack("<Q", len(tensors))]
    for raw, name in sorted((name.encode("utf-8", "surrogatepass"), name) for name in tensors):
        info = tensors[name]
        kind = kinds.get(info)
        if kind is None:
            dtype, shape = info.dtype.name.encode(), info.shape
            kind = struct.pack("<B", len(dtype)) + dtype + struct.pack(f"<B{len(shape)}Q", len(shape), *shape)
            kinds[info] = kind
        parts += struct.pack("<I", len(raw)), raw, kind, digests[name]
    return blake3(b"".join(parts)).hexdigest()


def short_digest(data: bytes) -> str:
    """The first 16 bytes of BLAKE3, as hex: what a diff keeps of a layout or a side file."""
    return blake3(data).digest()[:DIGEST_BYTES].hex()
