"""Whole models as named tensors, whatever their file layout.

`open_checkpoint` recognises the layout; each layout has files of its own in this package.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from diffpack.checkpoints.base import Checkpoint
from diffpack.checkpoints.folder_checkpoint import open_folder
from diffpack.checkpoints.memory import MappingCheckpoint, is_module, module_checkpoint
from diffpack.checkpoints.safetensors_reader import SafetensorsCheckpoint, ShardedSafetensorsCheckpoint
from diffpack.errors import CheckpointError, UnsupportedCheckpointError, UsageError
from diffpack.format import limits
from diffpack.support.names import printable
from diffpack.tensors.info import TensorInfo

__all__ = ["HDF5_SUFFIXES", "TORCH_SUFFIXES", "Checkpoint", "CheckpointLike", "TensorInfo", "open_checkpoint"]

if TYPE_CHECKING:
    import torch

CheckpointLike: TypeAlias = "str | os.PathLike[str] | Mapping[str, Any] | torch.nn.Module | Checkpoint"
"""What a function that wants a checkpoint takes: a path, named arrays or tensors, a torch module, or an opened one."""

TORCH_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")
HDF5_SUFFIXES = (".h5", ".hdf5")


def open_checkpoint(source: CheckpointLike, *, mmap: bool = True) -> Checkpoint:
    """Open a checkpoint by its path, or wrap tensors in memory: a torch module, its `state_dict()`, arrays by name.

    With `mmap` false no file is mapped: `words` reads a tensor into new memory. An opened checkpoint stays as it is.

    Raises `UsageError` for what is none of these, `CheckpointError` (missing, damaged), `UnsupportedCheckpointError`
    (unknown layout or dtype, tensors without values here), `MissingDependencyError` (h5py is needed and not installed).
    """
    if isinstance(source, Checkpoint):
        return source
    if isinstance(source, Mapping):
        return _storable(MappingCheckpoint(source))
    if is_module(source):
        return _storable(module_checkpoint(source))
    if not isinstance(source, str | os.PathLike):
        raise UsageError(
            f"a checkpoint is a path, a torch module, its state_dict(), or a mapping of arrays, not a "
            f"{type(source).__name__}"
        )
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
