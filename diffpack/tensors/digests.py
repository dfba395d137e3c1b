"""Content hashes: of a tensor, of all tensors together, of a small file."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from blake3 import blake3

from diffpack.tensors.blocks import blocks
from diffpack.tensors.dtypes import Words
from diffpack.tensors.info import TensorInfo

_PREFIX = b"diffpack fingerprint 1\n"
DIGEST_BYTES = 16
"""Bytes of a tensor's digest that a diff keeps."""


def tensor_digest(words: Words) -> bytes:
    """Give BLAKE3 (32 bytes) of a tensor's bytes, read block by block."""
    hasher = blake3()
    for start, stop in blocks(words.size):
        hasher.update(words[start:stop].view("u1").data)
    return hasher.digest()


def combine(tensors: Mapping[str, TensorInfo], digests: Mapping[str, bytes]) -> str:
    """Give the fingerprint (64 hex digits) of tensors whose digests are known (specification, section 8)."""
    hasher = blake3(_PREFIX + struct.pack("<Q", len(tensors)))
    for raw, name in sorted((name.encode("utf-8", "surrogatepass"), name) for name in tensors):
        info = tensors[name]
        dtype = info.dtype.name.encode()
        head = struct.pack("<I", len(raw)) + raw + struct.pack("<B", len(dtype)) + dtype
        shape = struct.pack(f"<B{len(info.shape)}Q", len(info.shape), *info.shape)
        hasher.update(head + shape + digests[name])
    return hasher.hexdigest()


def short_digest(data: bytes) -> str:
    """Give the first 16 bytes of BLAKE3 as hex: what a diff keeps of a layout or a side file."""
    return blake3(data).digest()[:DIGEST_BYTES].hex()
