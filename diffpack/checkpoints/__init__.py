"""Whole models as named tensors, whatever their file layout.

`open_checkpoint` recognises the layout, by a file's first bytes before its ending; each layout has files of its own in
this package.
"""

from __future__ import annotations

import contextlib
import difflib
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from diffpack.checkpoints.base import Checkpoint
from diffpack.checkpoints.endings import indexed, is_index, layout_of, seems_a_file
from diffpack.checkpoints.file_kinds import KINDS, kind_of, refuse_foreign, refuse_stand_in
from diffpack.checkpoints.folder_checkpoint import open_folder
from diffpack.checkpoints.memory import MappingCheckpoint, is_module, module_checkpoint
from diffpack.checkpoints.safetensors_reader import SafetensorsCheckpoint, ShardedSafetensorsCheckpoint
from diffpack.errors import CheckpointError, UnsupportedCheckpointError, UsageError
from diffpack.format import limits
from diffpack.support.names import printable
from diffpack.tensors.info import TensorInfo

__all__ = ["Checkpoint", "CheckpointLike", "TensorInfo", "open_checkpoint"]

if TYPE_CHECKING:
    import torch

CheckpointLike: TypeAlias = "str | os.PathLike[str] | Mapping[str, Any] | torch.nn.Module | Checkpoint"
"""What a function that wants a checkpoint takes: a path, named arrays or tensors, a torch module, or an opened one."""


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
    if os.path.isdir(path):  # which pathlib's does not tell of names that no file can have
        return _storable(open_folder(path, partial(_open_file, mmap=mmap)))
    if not os.path.exists(path):
        raise CheckpointError(f"{path}: no such file or folder", hint=_where_else(path))
    if not path.is_file():
        raise CheckpointError(f"{path}: no regular file: what is in it is read in any order; save it as a file")
    return _storable(_open_file(path, mmap=mmap))


def _where_else(path: Path) -> str:
    """What a name that leads nowhere may mean: a slip, or a model on a hub."""
    if len(path.name) > limits.FILE_NAME_BYTES:
        return ""
    with contextlib.suppress(OSError):
        names = [name for name in sorted(os.listdir(path.parent)) if _close(path.name, name)]
        if near := difflib.get_close_matches(path.name, names, 1):
            return f"{path.parent / near[0]} is there"
    if not path.is_absolute() and len(path.parts) == 2 and not os.path.exists(path.parent) and not seems_a_file(path):
        return (
            f"nothing is fetched from a hub: `hf download {path.as_posix()} --local-dir FOLDER` does, name FOLDER then"
        )
    return ""


def _close(name: str, other: str) -> bool:
    """Whether a name may be a slip of another: the whole is like it, and so is what stands before the first dot."""
    pairs = (name, other), (name.partition(".")[0], other.partition(".")[0])
    return all(difflib.SequenceMatcher(None, one, two).ratio() >= _CLOSE_NAME for one, two in pairs)


_CLOSE_NAME = 0.8


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
    if is_index(path.name):
        return _open_index(path, mmap=mmap)
    refuse_foreign(path)
    told, promised = kind_of(path), layout_of(path.name)
    layout = told or promised
    if layout is None:
        raise UnsupportedCheckpointError(
            f"{path}: cannot tell its layout; known are {', '.join(sorted(set(KINDS.values())))}, shard indexes "
            "(.index.json) and model folders"
        )
    opened = _READERS[layout](path, mmap)
    if layout != promised:
        opened.notes.insert(0, f"{path.name} is {KINDS[layout]}, though it is not called so: it is read as what it is")
    return opened


def _open_index(path: Path, *, mmap: bool) -> Checkpoint:
    refuse_stand_in(path)
    layout = layout_of(indexed(path.name))
    if layout == "safetensors":
        return ShardedSafetensorsCheckpoint(path, mmap=mmap)
    if layout == "hdf5":
        raise UnsupportedCheckpointError(
            f"{path}: HDF5 files of TensorFlow in shards are not read: load them with transformers before 5 "
            "(from_pretrained(FOLDER, from_tf=True)); save_pretrained then writes safetensors"
        )
    from diffpack.checkpoints.torch_reader import ShardedTorchCheckpoint

    return ShardedTorchCheckpoint(path, mmap=mmap)


def _open_torch(path: Path, mmap: bool) -> Checkpoint:
    from diffpack.checkpoints.torch_reader import TorchCheckpoint

    return TorchCheckpoint(path, mmap=mmap)


def _open_hdf5(path: Path, mmap: bool) -> Checkpoint:
    from diffpack.checkpoints.hdf5_reader import Hdf5Checkpoint

    return Hdf5Checkpoint(path, mmap=mmap)


def _open_keras(path: Path, mmap: bool) -> Checkpoint:
    from diffpack.checkpoints.keras_reader import KerasCheckpoint

    return KerasCheckpoint(path, mmap=mmap)


def _open_npz(path: Path, mmap: bool) -> Checkpoint:
    from diffpack.checkpoints.npz_reader import NpzCheckpoint

    return NpzCheckpoint(path, mmap=mmap)


_READERS: dict[str, Callable[[Path, bool], Checkpoint]] = {
    "safetensors": lambda path, mmap: SafetensorsCheckpoint(path, mmap=mmap),
    "torch": _open_torch,
    "hdf5": _open_hdf5,
    "keras": _open_keras,
    "npz": _open_npz,
}
