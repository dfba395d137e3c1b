"""Whole models as named tensors, whatever their file layout.

`open_checkpoint` recognises the layout; each layout has files of its own in this package.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from diffpack.checkpoints.base import Checkpoint
from diffpack.checkpoints.folder_checkpoint import open_folder
from diffpack.checkpoints.memory import MappingCheckpoint
from diffpack.checkpoints.safetensors_reader import SafetensorsCheckpoint, ShardedSafetensorsCheckpoint
from diffpack.errors import CheckpointError, UnsupportedCheckpointError
from diffpack.format import limits
from diffpack.support.names import printable
from diffpack.tensors.info import TensorInfo

__all__ = ["HDF5_SUFFIXES", "TORCH_SUFFIXES", "Checkpoint", "CheckpointLike", "TensorInfo", "open_checkpoint"]

CheckpointLike = str | os.PathLike[str] | Mapping[str, Any] | Checkpoint
"""What a function that wants a checkpoint takes: a path, named arrays or tensors, or an opened one."""

TORCH_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")
HDF5_SUFFIXES = (".h5", ".hdf5")


def open_checkpoint(source: CheckpointLike, *, mmap: bool = True) -> Checkpoint:
    """Open a checkpoint by its path, or wrap tensors in memory.

    With `mmap` false no file is mapped: `words` reads a tensor into new memory. An opened checkpoint stays as it is.

    Raises `CheckpointError` (missing, damaged), `UnsupportedCheckpointError` (unknown layout or dtype),
    `MissingDependencyError` (h5py is needed and not installed).
    """
    if isinstance(source, Checkpoint):
        return source
    if isinstance(source, Mapping):
        return _storable(MappingCheckpoint(source))
    path = Path(source)
    if path.is_dir():
        return _storable(open_folder(path, partial(_open_file, mmap=mmap)))
    if not path.exists():
        raise CheckpointError(f"{path}: no such file or folder")
    return _storable(_open_file(path, mmap=mmap))


def _storable(checkpoint: Checkpoint) -> Checkpoint:
    """Pass on a checkpoint that fits the format. Raises `CheckpointError` for a name or shape no diff can hold."""
    for name, info in checkpoint.tensors.items():
        try:
            fits = len(name.encode()) <= limits.NAME_BYTES
        except UnicodeEncodeError:
            fits = False
        if not fits:
            raise CheckpointError(f"{checkpoint.source}: a tensor's name is too long or no text: {name[:80]!r}")
        if len(info.shape) > limits.DIMENSIONS or max(info.shape, default=0) > limits.JSON_INTEGER:
            what = f"{len(info.shape)} dimensions, the largest of {max(info.shape)}"
            raise CheckpointError(f"{checkpoint.source}: {printable(name)}: {what}: more than a diff can hold")
    return checkpoint


def _open_file(path: Path, *, mmap: bool) -> Checkpoint:
    name = path.name.lower()
    if name.endswith(".safetensors.index.json"):
        return ShardedSafetensorsCheckpoint(path, mmap=mmap)
    if name.endswith(".safetensors"):
        return SafetensorsCheckpoint(path, mmap=mmap)
    if name.endswith(HDF5_SUFFIXES):
        from diffpack.checkpoints.hdf5_reader import Hdf5Checkpoint

        return Hdf5Checkpoint(path, mmap=mmap)
    if name.endswith(".index.json"):
        from diffpack.checkpoints.torch_reader import ShardedTorchCheckpoint

        return ShardedTorchCheckpoint(path, mmap=mmap)
    if name.endswith(TORCH_SUFFIXES):
        from diffpack.checkpoints.torch_reader import TorchCheckpoint

        return TorchCheckpoint(path, mmap=mmap)
    raise UnsupportedCheckpointError(
        f"{path}: cannot tell its layout; known are .safetensors, .bin .pt .pth .ckpt, .h5 .hdf5, "
        "shard indexes (.index.json) and model folders"
    )
