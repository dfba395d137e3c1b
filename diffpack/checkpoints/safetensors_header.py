"""The header of a safetensors file and the index of shards: read, checked, written.

The header is read and written here rather than by the safetensors package, because a diff gives the tuned
*files* back: that needs the header's own bytes, which the package neither gives nor reproduces.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from diffpack.errors import AGAIN, CheckpointError, UnsupportedCheckpointError
from diffpack.format import limits
from diffpack.support.names import printable
from diffpack.tensors.dtypes import DTYPES
from diffpack.tensors.info import TensorInfo

MOST_HEADER_BYTES = 100_000_000  # the safetensors package's own limit
_METADATA = "__metadata__"
_QUOTES_AN_ENTRY = 10  # those of its name, of its three members' names, and of its dtype


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
        together = b"[%b]" % b",".join(items.values())  # one call for all of them: there may be tens of thousands
        entries = dict(zip(items, msgspec.json.decode(together, type=list[_Entry]), strict=True))
        _refuse_repetition(free, where)
        if _may_repeat(raw, len(entries), free):
            _refuse_repetition(raw, where)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{where}: damaged safetensors header: {error}") from None
    tensors, starts, end = {}, {}, 0
    infos: dict[tuple[str, tuple[int, ...]], TensorInfo] = {}  # tensors of one dtype and shape share theirs
    for name, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        kind = entry.dtype, entry.shape
        info = infos.get(kind)
        if info is None:
            info = infos[kind] = _info(entry, name, where)
        start, stop = entry.data_offsets
        if start != end or stop - start != info.nbytes:
            raise CheckpointError(f"{where}: tensor {name!r} does not stand where its header says")
        tensors[name], starts[name], end = info, start, stop
    return Header(tensors, starts, metadata, end)


def _info(entry: _Entry, name: str, where: str) -> TensorInfo:
    if entry.dtype not in DTYPES:
        raise UnsupportedCheckpointError(f"{where}: tensor {name!r} has the unknown dtype {entry.dtype!r}")
    if len(entry.shape) > limits.DIMENSIONS:  # before they are multiplied: a short header can claim long products
        raise CheckpointError(f"{where}: tensor {name!r} has {len(entry.shape)} dimensions, more than a diff can hold")
    if any(size < 0 for size in entry.shape):
        raise CheckpointError(f"{where}: tensor {name!r} does not stand where its header says")
    return TensorInfo(DTYPES[entry.dtype], entry.shape)


def _may_repeat(raw: bytes, entries: int, free: bytes) -> bool:
    """Tell whether a header may name something twice outside its metadata; reading it pair by pair is slow.

    It may also hold members nobody knows, which are then read as JSON too.
    """
    twice = any(raw.count(member) != entries for member in (b'"dtype"', b'"shape"', b'"data_offsets"'))
    quotes = _QUOTES_AN_ENTRY * entries + free.count(b'"') + raw.count(b'"__metadata__"') * 2
    return twice or b"\\" in raw or raw.count(b'"__metadata__"') > 1 or raw.count(b'"') != quotes


def _refuse_repetition(raw: bytes, where: str) -> None:
    def unique(pairs: list[tuple[str, Any]]) -> None:
        names = [name for name, _ in pairs]
        if len(set(names)) < len(names):
            twice = next(name for name, times in Counter(names).items() if times > 1)
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


def read_index(index: Path) -> tuple[bytes, dict[str, str]]:
    """Read a shard index: its bytes, and tensor name -> shard file name. Raises `CheckpointError`."""
    try:
        raw = index.read_bytes()
        weight_map = msgspec.convert(msgspec.json.decode(raw)["weight_map"], dict[str, str])
    except OSError as error:
        raise CheckpointError(f"{index}: cannot be read: {error.strerror}") from error
    except (msgspec.MsgspecError, KeyError, TypeError, UnicodeError, RecursionError) as error:
        raise CheckpointError(f"{index}: damaged shard index: {error}: {AGAIN}") from None
    if not weight_map:
        raise CheckpointError(f"{index}: a shard index that names no tensor")
    for shard in sorted(set(weight_map.values())):
        if Path(shard).name != shard:
            raise CheckpointError(f"{index}: the shard name {shard!r} is a path")
        if len(shard.encode()) > limits.FILE_NAME_BYTES or "\0" in shard:
            raise CheckpointError(f"{index}: the shard name {printable(shard)} is longer than a file's, or has a NUL")
    return raw, weight_map
