"""Content hash of tensors and checkpoints: the same for every file layout of the same tensors."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from diffpack.checkpoints import Checkpoint, CheckpointLike, open_checkpoint
from diffpack.support.parallel import run_all
from diffpack.tensors.digests import combine, tensor_digest


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
