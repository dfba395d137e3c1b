"""safetensors, one file or sharded, read through a memory map."""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from diffpack.checkpoints.base import Checkpoint
from diffpack.checkpoints.safetensors_header import MOST_HEADER_BYTES, parse_header, read_index
from diffpack.errors import CheckpointError, MissingTensorError
from diffpack.support.names import listed, printable
from diffpack.tensors.dtypes import Words
from diffpack.tensors.info import TensorInfo


class SafetensorsCheckpoint(Checkpoint):
    """One `.safetensors` file."""

    layout = "safetensors"

    def __init__(self, path: Path, source: str | None = None) -> None:
        super().__init__(source or str(path), path)
        try:
            with path.open("rb") as file:
                prefix = file.read(8)
                size = int.from_bytes(prefix, "little")
                if len(prefix) < 8 or size > min(MOST_HEADER_BYTES, os.fstat(file.fileno()).st_size - 8):
                    raise CheckpointError(f"{self.source}: not a safetensors file, or truncated")
                self.raw_header = file.read(size)
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise CheckpointError(f"{self.source}: cannot be read: {error.strerror}") from error
        self.header = parse_header(self.raw_header, self.source)
        self._data = 8 + size
        if len(self._map) != self._data + self.header.data_bytes:
            raise CheckpointError(f"{self.source}: truncated or damaged: its data and its header disagree in size")

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors by name, in the order of their data."""
        return self.header.tensors

    def words(self, name: str) -> Words:
        """A tensor's words as a view of the memory map."""
        info = self.info(name)
        start = self._data + self.header.starts[name]
        return np.frombuffer(self._map, dtype=info.dtype.word, count=info.words, offset=start)

    def header_files(self) -> list[tuple[str, bytes]]:
        """The one file's name and header."""
        assert self.path is not None
        return [(self.path.name, self.raw_header)]

    def index_file(self) -> tuple[str, bytes] | None:
        """None: a single file has no index."""
        return None


class ShardedSafetensorsCheckpoint(Checkpoint):
    """Several `.safetensors` files and the index that names them."""

    layout = "safetensors-sharded"

    def __init__(self, index: Path, source: str | None = None) -> None:
        super().__init__(source or str(index), index)
        self.raw_index, weight_map = read_index(index)
        self.shards: dict[str, SafetensorsCheckpoint] = {}
        self._tensors: dict[str, TensorInfo] = {}
        self._home: dict[str, SafetensorsCheckpoint] = {}
        for shard in sorted(set(weight_map.values())):
            path = index.parent / shard
            if not path.is_file():
                tensor = next(name for name, home in weight_map.items() if home == shard)
                raise CheckpointError(f"{index}: the shard {shard} is missing (it holds {tensor!r})")
            self.shards[shard] = SafetensorsCheckpoint(path)
            for name, info in self.shards[shard].tensors.items():
                if name in self._home:
                    raise CheckpointError(f"{index}: tensor {name!r} stands in two shards")
                self._tensors[name], self._home[name] = info, self.shards[shard]
        unlisted = sorted(self._home.keys() - weight_map.keys())
        if unlisted:
            self.notes.append(f"not in the index, and taken as well: {listed([printable(name) for name in unlisted])}")
        for name, shard in weight_map.items():
            if name not in self._home or self._home[name] is not self.shards[shard]:
                raise CheckpointError(f"{index}: tensor {name!r} is not in the shard {shard}")

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors, shard by shard."""
        return self._tensors

    @property
    def files(self) -> list[Path]:
        """The index and the shards."""
        return [*super().files, *(path for shard in self.shards.values() for path in shard.files)]

    def words(self, name: str) -> Words:
        """A tensor's words as a view of its shard's memory map."""
        if name not in self._home:
            raise MissingTensorError(f"{self.source}: no tensor {name!r}")
        return self._home[name].words(name)

    def header_files(self) -> list[tuple[str, bytes]]:
        """Every shard's name and header."""
        return [(name, shard.raw_header) for name, shard in self.shards.items()]

    def index_file(self) -> tuple[str, bytes] | None:
        """The index's name and bytes."""
        assert self.path is not None
        return self.path.name, self.raw_index
