"""PyTorch checkpoints, to write: one file as `torch.save` writes it, or shards with an index. torch is not needed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from diffpack.checkpoints.base import CheckpointWriter
from diffpack.checkpoints.torch_dtypes import torch_shape
from diffpack.checkpoints.torch_layout import plan
from diffpack.checkpoints.written_file import CREATE, create, opened, writing
from diffpack.checkpoints.zip_writer import ZipFilling, ZipWriter
from diffpack.errors import CheckpointError, UnsupportedCheckpointError
from diffpack.format.file_names import is_plain_file_name
from diffpack.tensors.info import TensorInfo


class TorchWriter(ZipWriter):
    """Write a flat dict of tensors, in the order of `tensors`, in bounded memory.

    `ties` lead from names to those of the same tensor: both get one storage. Raises `CheckpointError` for a dtype torch
    lacks, and as `ZipWriter`.
    """

    def __init__(
        self,
        path: Path,
        tensors: Mapping[str, TensorInfo],
        ties: Mapping[str, str] | None = None,
        *,
        replace: bool = False,
    ) -> None:
        super().__init__(_filling(path, tensors, ties or {}), replace=replace)


class ShardedTorchWriter(CheckpointWriter):
    """Write shards and their index into `folder`, which exists and is the caller's to publish, in bounded memory.

    `shards` names the tensors of each file; `ties` as of `TorchWriter`, of use where both names are in one file. Raises
    `CheckpointError` for a dtype torch lacks, a shard's name that is a path, or a tensor not in one shard.
    """

    def __init__(
        self,
        folder: Path,
        shards: Mapping[str, Sequence[str]],
        tensors: Mapping[str, TensorInfo],
        index_name: str = "pytorch_model.bin.index.json",
        ties: Mapping[str, str] | None = None,
    ) -> None:
        self._index = folder / index_name
        self._tensors = tensors
        self._where = {name: shard for shard, names in shards.items() for name in names}
        for shard in shards:  # their names come from an index that may come from anywhere
            if not is_plain_file_name(shard) or shard == index_name:
                raise CheckpointError(f"{self._index}: the shard {shard!r} is not named as a file beside it")
        if sorted(tensors) != sorted(name for names in shards.values() for name in names):
            raise CheckpointError(f"{self._index}: the shards do not hold every tensor exactly once")
        self._fillings = {
            shard: _filling(folder / shard, {name: tensors[name] for name in names}, ties or {})
            for shard, names in shards.items()
        }
        try:
            for filling in self._fillings.values():
                with writing(filling.path), opened(filling.path, CREATE) as descriptor:
                    filling.begin(descriptor)
        except BaseException:
            self.discard()
            raise

    def write(self, name: str, offset: int, data: npt.NDArray[Any]) -> None:
        """Write a piece of a tensor at its place; see `CheckpointWriter.write`."""
        filling = self._fillings[self._where[name]]
        # opened for each piece: there may be more shards than files can be open
        with writing(filling.path), opened(filling.path) as descriptor:
            filling.write(descriptor, name, offset, data)

    def publish(self) -> None:
        """Finish the shards, then write the index."""
        for filling in self._fillings.values():
            with writing(filling.path), opened(filling.path) as descriptor:
                filling.finish(descriptor)
        size = sum(info.nbytes for info in self._tensors.values())
        where = {name: self._where[name] for name in self._tensors}
        text = json.dumps({"metadata": {"total_size": size}, "weight_map": where}, indent=2)
        create(self._index, f"{text}\n".encode())

    def discard(self) -> None:
        """Remove the shards and the index."""
        for path in (self._index, *(filling.path for filling in self._fillings.values())):
            path.unlink(missing_ok=True)


def _filling(path: Path, tensors: Mapping[str, TensorInfo], ties: Mapping[str, str]) -> ZipFilling:
    """Plan a file. Raises `UnsupportedCheckpointError` for what torch cannot hold."""
    for name, info in tensors.items():
        if torch_shape(info.dtype.name, info.shape) is None:
            raise UnsupportedCheckpointError(f"{path}: {name!r}: PyTorch cannot hold {info}")
    tied = _within(ties, tensors)
    return ZipFilling(path, plan(tensors, tied), tied)


def _within(ties: Mapping[str, str], tensors: Mapping[str, TensorInfo]) -> dict[str, str]:
    """The ties between tensors of one file, each led to a name that has no other."""
    own = {name: first for name, first in ties.items() if name in tensors and tensors[name] == tensors.get(first)}
    found = {}
    for name, first in own.items():
        seen = {name}
        while first in own and first not in seen:
            seen.add(first)
            first = own[first]
        if first not in own:
            found[name] = first
    return found
