"""Content hash of tensors and checkpoints: the same for every file layout of the same tensors."""

from __future__ import annotations

from diffpack.checkpoints import CheckpointLike, open_checkpoint
from diffpack.checkpoints.base import digests_of
from diffpack.support.inputs import Inputs
from diffpack.support.memory import memory_told
from diffpack.tensors.digests import combine


@memory_told
def fingerprint(checkpoint: CheckpointLike, *, threads: int | None = None) -> str:
    """A checkpoint's fingerprint: 64 hex digits that depend on names, dtypes, shapes and bits alone.

    Raises `CheckpointError` if it cannot be read, or changes while it is read.
    """
    opened = open_checkpoint(checkpoint)
    with Inputs(opened.files).unchanged():
        return combine(opened.tensors, digests_of(opened, opened.tensors, threads))
