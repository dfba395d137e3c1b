"""safetensors, one file or sharded, read by offset."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from diffpack.checkpoints.base import Checkpoint
from diffpack.checkpoints.file_kinds import refuse_other
from diffpack.checkpoints.safetensors_header import MOST_HEADER_BYTES, parse_header, read_index
from diffpack.checkpoints.shards import sort_into_shards
from diffpack.checkpoints.weights_file import FileWords, WeightsFile
from diffpack.errors import AGAIN, CheckpointError, MissingTensorError
from diffpack.tensors.dtypes import Words
from diffpack.tensors.info import TensorInfo

_PREFIX = 8  # bytes that tell the header's length


class SafetensorsCheckpoint(Checkpoint):
    """One `.safetensors` file; with `mmap` false it is never mapped."""

    layout = "safetensors"

    def __init__(self, path: Path, source: str | None = None, *, mmap: bool = True) -> None:
        super().__init__(source or str(path), path)
        self._file = WeightsFile(path, self.notes, mmap=mmap)
        size = int.from_bytes(self._file.read(0, min(_PREFIX, self._file.size)), "little")
        if self._file.size < _PREFIX or size > min(MOST_HEADER_BYTES, self._file.size - _PREFIX):
            refuse_other(path, "safetensors")
            raise CheckpointError(f"{self.source}: not a safetensors file, or truncated: {AGAIN}")
        self.raw_header = self._file.read(_PREFIX, size)
        self.header = parse_header(self.raw_header, self.source)
        self._data = _PREFIX + size
        if self._file.size != self._data + self.header.data_bytes:
            raise CheckpointError(
                f"{self.source}: truncated or damaged: its data and its header disagree in size (it has "
                f"{self._file.size} bytes, its header tells of {self._data + self.header.data_bytes}): {AGAIN}"
            )

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors by name, in the order of their data."""
        return self.header.tensors

    def words(self, name: str) -> Words:
        """A tensor's words as a view of the memory map, or read."""
        info = self.info(name)
        return self._file.words(self._data + self.header.starts[name], info.words, info.dtype.word)

    def word_source(self, name: str) -> FileWords:
        """A tensor's words, read from the file part by part."""
        info = self.info(name)
        return FileWords(self._file, self._data + self.header.starts[name], info.words, info.dtype.word)

    def close(self) -> None:
        """Close the file; arrays handed out before stay valid."""
        self._file.close()

    def header_files(self) -> list[tuple[str, bytes]]:
        """The one file's name and header."""
        assert self.path is not None
        return [(self.path.name, self.raw_header)]

    def index_file(self) -> tuple[str, bytes] | None:
        """None: a single file has no index."""
        return None


class ShardedSafetensorsCheckpoint(Checkpoint):
    """Several `.safetensors` files and the index that names them; `homes` gives the shard of each tensor.

    A tensor that stands in a second shard, too, is that of the shard its index names. Raises `CheckpointError` if the
    index is damaged, a shard is missing, a tensor is not in the shard named for it, or in two and not in the index.
    """

    layout = "safetensors-sharded"

    def __init__(self, index: Path, source: str | None = None, *, mmap: bool = True) -> None:
        super().__init__(source or str(index), index)
        self.raw_index, weight_map = read_index(index)
        self.shards: dict[str, SafetensorsCheckpoint] = {}
        for shard in sorted(set(weight_map.values())):
            path = index.parent / shard
            if not path.is_file():
                tensor = next(name for name, home in weight_map.items() if home == shard)
                raise CheckpointError(f"{index}: the shard {shard} is missing (it holds {tensor!r}): {AGAIN}")
            self.shards[shard] = SafetensorsCheckpoint(path, mmap=mmap)
        contents = {shard: opened.tensors for shard, opened in self.shards.items()}
        self.homes, notes = sort_into_shards(weight_map, contents, str(index))
        self.notes += [*(note for opened in self.shards.values() for note in opened.notes), *notes]
        self._sources: dict[str, FileWords] = {}
        self._repeats = len(self.homes) < sum(map(len, contents.values()))
        self._tensors = {
            name: info for shard, part in contents.items() for name, info in part.items() if self.homes[name] == shard
        }

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors, shard by shard."""
        return self._tensors

    @property
    def files(self) -> list[Path]:
        """The index and the shards."""
        return [*super().files, *(path for shard in self.shards.values() for path in shard.files)]

    def words(self, name: str) -> Words:
        """A tensor's words, as its shard gives them."""
        return self._home(name).words(name)

    def word_source(self, name: str) -> FileWords:
        """A tensor's words, read from its shard part by part; made once."""
        known = self._sources.get(name)
        if known is None:
            known = self._sources.setdefault(name, self._home(name).word_source(name))
        return known

    def _home(self, name: str) -> SafetensorsCheckpoint:
        if name not in self.homes:
            raise MissingTensorError(f"{self.source}: no tensor {name!r}")
        return self.shards[self.homes[name]]

    def close(self) -> None:
        """Close all shards; arrays handed out before stay valid."""
        for shard in self.shards.values():
            shard.close()

    def header_files(self) -> list[tuple[str, bytes]] | None:
        """Every shard's name and header; None if a tensor stands in two of them, which no result is written as."""
        return None if self._repeats else [(name, shard.raw_header) for name, shard in self.shards.items()]

    def index_file(self) -> tuple[str, bytes] | None:
        """The index's name and bytes."""
        assert self.path is not None
        return self.path.name, self.raw_index
