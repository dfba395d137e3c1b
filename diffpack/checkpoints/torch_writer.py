"""PyTorch checkpoints, to write: one file as `torch.save` writes it, or shards with an index. torch is not needed."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from diffpack.checkpoints.base import CheckpointWriter
from diffpack.checkpoints.torch_dtypes import torch_shape
from diffpack.checkpoints.torch_layout import CHECKSUM_AT, plan
from diffpack.errors import CheckpointError, UnsupportedCheckpointError
from diffpack.format.file_names import is_plain_file_name
from diffpack.support.atomic import AtomicStack, atomic_file
from diffpack.support.placed_bytes import put, reserve
from diffpack.tensors.info import TensorInfo

_CHECKSUM_BYTES = 4


class TorchWriter(CheckpointWriter):
    """Write a flat dict of tensors, in the order of `tensors`, in bounded memory.

    `ties` lead from names to those of the same tensor: both get one storage. Raises `CheckpointError` for a dtype torch
    lacks, for a file that cannot be written, and on publishing for tensors not filled; `UsageError` for a file that
    exists, unless it may `replace` it.
    """

    def __init__(
        self,
        path: Path,
        tensors: Mapping[str, TensorInfo],
        ties: Mapping[str, str] | None = None,
        *,
        replace: bool = False,
    ) -> None:
        self._filling = _Filling(path, tensors, ties or {})
        self._stack = AtomicStack()
        try:
            with _writing(path):
                self._descriptor = self._stack.enter_context(atomic_file(path, replace=replace)).fileno()
                self._filling.begin(self._descriptor)
        except BaseException:
            self._stack.discard()
            raise

    def write(self, name: str, offset: int, data: npt.NDArray[Any]) -> None:
        """Write a piece of a tensor at its place; see `CheckpointWriter.write`."""
        with _writing(self._filling.path):
            self._filling.write(self._descriptor, name, offset, data)

    def publish(self) -> None:
        """Finish the file and rename it to its name."""
        try:
            with _writing(self._filling.path):
                self._filling.finish(self._descriptor)
                self._stack.close()
        except BaseException:
            self._stack.discard()
            raise

    def discard(self) -> None:
        """Remove the temporary file."""
        self._stack.discard()


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
            shard: _Filling(folder / shard, {name: tensors[name] for name in names}, ties or {})
            for shard, names in shards.items()
        }
        try:
            for filling in self._fillings.values():
                with _opened(filling.path, os.O_CREAT | os.O_TRUNC) as descriptor:
                    filling.begin(descriptor)
        except BaseException:
            self.discard()
            raise

    def write(self, name: str, offset: int, data: npt.NDArray[Any]) -> None:
        """Write a piece of a tensor at its place; see `CheckpointWriter.write`."""
        filling = self._fillings[self._where[name]]
        with _opened(filling.path) as descriptor:  # for each piece: there may be more shards than files can be open
            filling.write(descriptor, name, offset, data)

    def publish(self) -> None:
        """Finish the shards, then write the index."""
        for filling in self._fillings.values():
            with _opened(filling.path) as descriptor:
                filling.finish(descriptor)
        size = sum(info.nbytes for info in self._tensors.values())
        where = {name: self._where[name] for name in self._tensors}
        text = json.dumps({"metadata": {"total_size": size}, "weight_map": where}, indent=2)
        with _writing(self._index):
            self._index.write_text(text + "\n", encoding="utf-8")

    def discard(self) -> None:
        """Remove the shards and the index."""
        for path in (self._index, *(filling.path for filling in self._fillings.values())):
            path.unlink(missing_ok=True)


class _Filling:
    """One file whose layout is planned, while its tensors come."""

    def __init__(self, path: Path, tensors: Mapping[str, TensorInfo], ties: Mapping[str, str]) -> None:
        for name, info in tensors.items():
            if torch_shape(info.dtype.name, info.shape) is None:
                raise UnsupportedCheckpointError(f"{path}: {name!r}: PyTorch cannot hold {info}")
        self.path = path
        self._ties = _within(ties, tensors)
        self._layout = plan(tensors, self._ties)
        self._checksums = {member.name: self._layout.checksums.get(member.name, 0) for member in self._layout.members}
        self._missing = {name: info.nbytes for name, info in tensors.items() if name not in self._ties}
        self._lock = threading.Lock()

    def begin(self, descriptor: int) -> None:
        """Write what is known beforehand, and take the disk space."""
        reserve(descriptor, self._layout.end)
        for offset, piece in self._layout.pieces.items():
            put(descriptor, offset, piece)

    def write(self, descriptor: int, name: str, offset: int, data: npt.NDArray[Any]) -> None:
        """Write a piece; those of one tensor come in order, so that its checksum grows with them."""
        if name in self._ties:  # the same bytes come under the first name
            return
        member = self._layout.homes[name]
        if offset != member.size - self._missing[name]:
            raise ValueError(f"{name!r}: the piece at {offset} is not the next one")
        raw = np.ascontiguousarray(data).view(np.uint8)
        put(descriptor, member.start + offset, raw)
        checksum = zlib.crc32(raw.data, self._checksums[member.name])
        with self._lock:
            self._checksums[member.name] = checksum
            self._missing[name] -= raw.size

    def finish(self, descriptor: int) -> None:
        """Write the checksums and the directory. Raises `CheckpointError` if bytes are missing."""
        missing = sum(self._missing.values())
        if missing:
            raise CheckpointError(f"{self.path}: {missing} bytes of its tensors were never written")
        for member in self._layout.members:
            checksum = self._checksums[member.name].to_bytes(_CHECKSUM_BYTES, "little")
            put(descriptor, member.header + CHECKSUM_AT, checksum)
        put(descriptor, self._layout.end, self._layout.directory(self._checksums))


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


@contextlib.contextmanager
def _opened(path: Path, flags: int = 0) -> Iterator[int]:
    with _writing(path):
        descriptor = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0) | flags, 0o666)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written: {error.strerror}") from error
