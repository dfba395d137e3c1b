"""Content hash of tensors and checkpoints: the same for every file layout of the same tensors."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from functools import partial

from blake3 import blake3

from diffpack.checkpoints import Checkpoint, CheckpointLike, TensorInfo, open_checkpoint
from diffpack.support.parallel import run_all
from diffpack.tensors.blocks import blocks
from diffpack.tensors.dtypes import Words

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


def digests_of(checkpoint: Checkpoint, names: Iterable[str], threads: int | None = None) -> dict[str, bytes]:
    """Hash tensors of a checkpoint in threads: name -> BLAKE3 (32 bytes) of the tensor's bytes."""
    wanted = list(names)
    return dict(zip(wanted, run_all([partial(_digest, checkpoint, name) for name in wanted], threads), strict=True))


def _digest(checkpoint: Checkpoint, name: str) -> bytes:
    return tensor_digest(checkpoint.words(name))


def fingerprint(checkpoint: CheckpointLike, *, threads: int | None = None) -> str:
    """Give a checkpoint's fingerprint: 64 hex digits that depend on names, dtypes, shapes and bits alone.

    Raises `CheckpointError` if it cannot be read.
    """
    opened = open_checkpoint(checkpoint)
    return combine(opened.tensors, digests_of(opened, opened.tensors, threads))
