"""PyTorch checkpoints, to write: one `torch.save` file, or shards with an index.

torch is imported when a writer first needs it, not before.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from diffpack.checkpoints.base import CheckpointWriter
from diffpack.checkpoints.torch_tensors import as_tensor, import_torch, torch_cause, torch_dtype
from diffpack.errors import CheckpointError
from diffpack.format.manifest_rules import is_plain_file_name
from diffpack.support.atomic import atomic_file
from diffpack.tensors.info import TensorInfo

if TYPE_CHECKING:
    import torch


class TorchWriter(CheckpointWriter):
    """Gather tensors in memory and `torch.save` them as a flat dict, in the order of `tensors`.

    Raises `CheckpointError` for a dtype torch lacks, at once, and on publishing for tensors not filled or a
    file that cannot be written.
    """

    def __init__(self, path: Path, tensors: Mapping[str, TensorInfo]) -> None:
        self._path = path
        self._gathered = _Gathered(path, tensors)

    def write(self, name: str, offset: int, data: npt.NDArray[Any]) -> None:
        """Copy a piece of a tensor; see `CheckpointWriter.write`."""
        self._gathered.add(name, offset, data)

    def publish(self) -> None:
        """Write the file, whole or not at all."""
        tensors = self._gathered.take()
        with _writing(self._path), atomic_file(self._path) as file:
            import_torch().save(tensors, file)

    def discard(self) -> None:
        """Let go of the memory; nothing was written."""
        self._gathered.drop()


class ShardedTorchWriter(CheckpointWriter):
    """Write shards and their index into `folder`, which exists and is the caller's to publish.

    `shards` names the tensors of each file; a shard is saved, and its memory freed, once it is full. Raises
    `CheckpointError` for a dtype torch lacks, a shard's name that is a path, or a tensor not in one shard.
    """

    def __init__(
        self,
        folder: Path,
        shards: Mapping[str, Sequence[str]],
        tensors: Mapping[str, TensorInfo],
        index_name: str = "pytorch_model.bin.index.json",
    ) -> None:
        self._folder = folder
        self._index = folder / index_name
        self._tensors = tensors
        self._where = {name: shard for shard, names in shards.items() for name in names}
        for shard in shards:  # their names come from an index that may come from anywhere
            if not is_plain_file_name(shard) or shard == index_name:
                raise CheckpointError(f"{self._index}: the shard {shard!r} is not named as a file beside it")
        if sorted(tensors) != sorted(name for names in shards.values() for name in names):
            raise CheckpointError(f"{self._index}: the shards do not hold every tensor exactly once")
        self._gathered = {
            shard: _Gathered(folder / shard, {name: tensors[name] for name in names}) for shard, names in shards.items()
        }

    def write(self, name: str, offset: int, data: npt.NDArray[Any]) -> None:
        """Copy a piece of a tensor and save the shard it fills; see `CheckpointWriter.write`."""
        gathered = self._gathered[self._where[name]]
        if gathered.add(name, offset, data):
            self._save(gathered)

    def publish(self) -> None:
        """Save the shards without bytes, then the index."""
        for gathered in self._gathered.values():
            if not gathered.taken:
                self._save(gathered)
        size = sum(info.nbytes for info in self._tensors.values())
        where = {name: self._where[name] for name in self._tensors}
        text = json.dumps({"metadata": {"total_size": size}, "weight_map": where}, indent=2)
        with _writing(self._index):
            self._index.write_text(text + "\n", encoding="utf-8")

    def discard(self) -> None:
        """Remove the shards and the index."""
        self._index.unlink(missing_ok=True)
        for gathered in self._gathered.values():
            gathered.drop()
            gathered.path.unlink(missing_ok=True)

    @staticmethod
    def _save(gathered: _Gathered) -> None:
        tensors = gathered.take()
        with _writing(gathered.path), gathered.path.open("wb") as file:
            import_torch().save(tensors, file)


class _Gathered:
    """The tensors of one file, in memory, as they fill."""

    def __init__(self, path: Path, tensors: Mapping[str, TensorInfo]) -> None:
        self.path = path
        self._tensors = tensors
        for name, info in tensors.items():
            torch_dtype(info, f"{path}: {name!r}")
        self._buffers: dict[str, npt.NDArray[np.uint8]] = {}
        self._missing = sum(info.nbytes for info in tensors.values())
        self._lock = threading.Lock()
        self.taken = False

    def add(self, name: str, offset: int, data: npt.NDArray[Any]) -> bool:
        """Copy a piece; True for the piece that fills the last tensor."""
        info = self._tensors[name]
        with self._lock:
            if name not in self._buffers:
                self._buffers[name] = np.empty(info.nbytes, np.uint8)
        self._buffers[name][offset : offset + data.nbytes] = data.view(np.uint8)
        with self._lock:
            self._missing -= data.nbytes
            return self._missing == 0

    def take(self) -> dict[str, torch.Tensor]:
        """Hand over all tensors; raises `CheckpointError` if bytes are missing."""
        if self._missing:
            raise CheckpointError(f"{self.path}: {self._missing} bytes of its tensors were never written")
        self.taken = True
        none = np.empty(0, np.uint8)
        return {
            name: as_tensor(self._buffers.pop(name, none).view(info.dtype.word), info, name)
            for name, info in self._tensors.items()
        }

    def drop(self) -> None:
        """Let go of the memory."""
        self._buffers = {}


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:
        hidden = isinstance(error, RuntimeError) and isinstance(error.__context__, OSError)  # torch does that
        cause = error.__context__ if hidden else error
        raise CheckpointError(f"{path}: cannot be written: {torch_cause(cause)}") from error
