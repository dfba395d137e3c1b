"""safetensors, one file or sharded: read through a memory map, written in place into temporary siblings.

The header is read and written here rather than by the safetensors package, because a diff gives the tuned
*files* back: that needs the header's own bytes, which the package neither gives nor reproduces.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from diffpack.checkpoints.base import Checkpoint
from diffpack.checkpoints.writer import CheckpointWriter
from diffpack.errors import CheckpointError, MissingTensorError, UnsupportedCheckpointError
from diffpack.support.atomic import AtomicStack, atomic_file
from diffpack.support.names import listed, printable
from diffpack.tensors.dtypes import DTYPES, Words
from diffpack.tensors.info import TensorInfo

_MOST_HEADER = 100_000_000  # the safetensors package's own limit
_METADATA = "__metadata__"


class _Entry(msgspec.Struct, frozen=True):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


class Header(msgspec.Struct, frozen=True):
    """A parsed header: tensors in the order of their data, where each starts, and the free metadata."""

    tensors: dict[str, TensorInfo]
    starts: dict[str, int]
    metadata: dict[str, str]
    data_bytes: int


def parse_header(raw: bytes, where: str) -> Header:
    """Parse and check a header's JSON. Raises `CheckpointError`, `UnsupportedCheckpointError`."""
    try:
        items = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
        free = bytes(items.pop(_METADATA, b"null"))
        metadata = msgspec.json.decode(free, type=dict[str, str] | None) or {}
        entries = {name: msgspec.json.decode(item, type=_Entry) for name, item in items.items()}
        _refuse_repetition(free, where)
        if _may_repeat(raw, len(entries)):
            _refuse_repetition(raw, where)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{where}: damaged safetensors header: {error}") from None
    order = sorted(entries, key=lambda name: entries[name].data_offsets)
    tensors, starts, end = {}, {}, 0
    for name in order:
        entry = entries[name]
        if entry.dtype not in DTYPES:
            raise UnsupportedCheckpointError(f"{where}: tensor {name!r} has the unknown dtype {entry.dtype!r}")
        info = TensorInfo(DTYPES[entry.dtype], entry.shape)
        start, stop = entry.data_offsets
        if start != end or stop - start != info.nbytes or any(size < 0 for size in entry.shape):
            raise CheckpointError(f"{where}: tensor {name!r} does not stand where its header says")
        tensors[name], starts[name], end = info, start, stop
    return Header(tensors, starts, metadata, end)


def _may_repeat(raw: bytes, entries: int) -> bool:
    """Tell whether a header may name something twice outside its metadata; reading it pair by pair is slow."""
    twice = any(raw.count(member) != entries for member in (b'"dtype"', b'"shape"', b'"data_offsets"'))
    return twice or b"\\" in raw or raw.count(b'"__metadata__"') > 1


def _refuse_repetition(raw: bytes, where: str) -> None:
    def unique(pairs: list[tuple[str, Any]]) -> None:
        names = [name for name, _ in pairs]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise CheckpointError(f"{where}: damaged safetensors header: {twice!r} stands there twice")

    json.loads(raw, object_pairs_hook=unique)


def make_header(tensors: Mapping[str, TensorInfo], metadata: Mapping[str, str]) -> bytes:
    """Write a header: widest dtypes first (so that data is aligned), otherwise in the mapping's order."""
    order = sorted(tensors, key=lambda name: -tensors[name].dtype.word_bits)
    value: dict[str, Any] = {_METADATA: dict(sorted(metadata.items()))} if metadata else {}
    start = 0
    for name in order:
        info = tensors[name]
        stop = start + info.nbytes
        value[name] = {"dtype": info.dtype.name, "shape": list(info.shape), "data_offsets": [start, stop]}
        start = stop
    raw = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    return raw + b" " * (-len(raw) % 8)


def make_index(shards: Mapping[str, Mapping[str, TensorInfo]]) -> bytes:
    """Write a shard index in the form the transformers library writes it."""
    total = sum(info.nbytes for part in shards.values() for info in part.values())
    weight_map = {name: shard for shard, part in shards.items() for name in part}
    value = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    return (json.dumps(value, indent=2) + "\n").encode()


class SafetensorsCheckpoint(Checkpoint):
    """One `.safetensors` file."""

    layout = "safetensors"

    def __init__(self, path: Path, source: str | None = None) -> None:
        super().__init__(source or str(path), path)
        try:
            with path.open("rb") as file:
                prefix = file.read(8)
                size = int.from_bytes(prefix, "little")
                if len(prefix) < 8 or size > min(_MOST_HEADER, os.fstat(file.fileno()).st_size - 8):
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
        """Give a tensor's words as a view of the memory map."""
        info = self.info(name)
        start = self._data + self.header.starts[name]
        return np.frombuffer(self._map, dtype=info.dtype.word, count=info.words, offset=start)

    def header_files(self) -> list[tuple[str, bytes]]:
        """Give the one file's name and header."""
        assert self.path is not None
        return [(self.path.name, self.raw_header)]

    def index_file(self) -> tuple[str, bytes] | None:
        """Give None: a single file has no index."""
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
        """Give a tensor's words as a view of its shard's memory map."""
        if name not in self._home:
            raise MissingTensorError(f"{self.source}: no tensor {name!r}")
        return self._home[name].words(name)

    def header_files(self) -> list[tuple[str, bytes]]:
        """Give every shard's name and header."""
        return [(name, shard.raw_header) for name, shard in self.shards.items()]

    def index_file(self) -> tuple[str, bytes] | None:
        """Give the index's name and bytes."""
        assert self.path is not None
        return self.path.name, self.raw_index


def read_index(index: Path) -> tuple[bytes, dict[str, str]]:
    """Read a shard index: its bytes, and tensor name -> shard file name. Raises `CheckpointError`."""
    try:
        raw = index.read_bytes()
        weight_map = msgspec.convert(msgspec.json.decode(raw)["weight_map"], dict[str, str])
    except OSError as error:
        raise CheckpointError(f"{index}: cannot be read: {error.strerror}") from error
    except (msgspec.MsgspecError, KeyError, TypeError, UnicodeError, RecursionError) as error:
        raise CheckpointError(f"{index}: damaged shard index: {error}") from None
    if not weight_map:
        raise CheckpointError(f"{index}: a shard index that names no tensor")
    for shard in weight_map.values():
        if Path(shard).name != shard:
            raise CheckpointError(f"{index}: the shard name {shard!r} is a path")
    return raw, weight_map


class SafetensorsWriter(CheckpointWriter):
    """Writes safetensors files whose headers are given: byte for byte what those headers describe."""

    def __init__(self, targets: Sequence[tuple[Path, bytes]], extra: Sequence[tuple[Path, bytes]] = ()) -> None:
        self._stack = AtomicStack()
        self._lock = threading.Lock()
        self._homes: dict[str, tuple[int, int]] = {}
        try:
            for path, raw in targets:
                header = parse_header(raw, str(path))
                file = self._stack.enter_context(atomic_file(path))
                file.write(len(raw).to_bytes(8, "little") + raw)
                file.flush()
                start = 8 + len(raw)
                _reserve(file.fileno(), start + header.data_bytes)
                self._homes |= {name: (file.fileno(), start + at) for name, at in header.starts.items()}
            for path, content in extra:
                self._stack.enter_context(atomic_file(path)).write(content)
        except BaseException:
            self._stack.discard()
            raise

    def write(self, name: str, offset: int, data: npt.NDArray[Any]) -> None:
        """Write words at their place in the file."""
        descriptor, start = self._homes[name]
        view = np.ascontiguousarray(data).view("u1").data
        at = start + offset
        while view:
            written = self._write_some(descriptor, view, at)
            view, at = view[written:], at + written

    def _write_some(self, descriptor: int, view: memoryview, at: int) -> int:
        pwrite: Callable[[int, memoryview, int], int] | None = getattr(os, "pwrite", None)
        if pwrite is not None:
            return pwrite(descriptor, view, at)
        with self._lock:  # systems without pwrite
            os.lseek(descriptor, at, os.SEEK_SET)
            return os.write(descriptor, view)

    def publish(self) -> None:
        """Rename every file to its name."""
        self._stack.close()

    def discard(self) -> None:
        """Remove the temporary files."""
        self._stack.discard()


def _reserve(descriptor: int, size: int) -> None:
    """Take the disk space now, so that a full disk is known before the work is done."""
    fallocate = getattr(os, "posix_fallocate", None)
    if fallocate is not None and size:
        try:
            fallocate(descriptor, 0, size)
            return
        except OSError as error:  # not every file system can
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise
    os.ftruncate(descriptor, size)
