"""The delta directory of slime and SGLang (`/pull_weights`), and of ModelExpress: one version of a stream of weights.

A folder laid out as a Hugging Face checkpoint. Under each changed tensor's name lies one zstd frame (level 1) as a U8
tensor; the index's `metadata` says `version`, `base_version`, `delta_encoding`, `compression_format` (zstd) and
`checksum_format`; each shard's `__metadata__` has the checksum of each tensor's new bytes. Encodings speak of bytes:

- `xor`: as many bytes as the tensor has, new XOR old;
- `overwrite`: u32 count, that many u32 byte positions, that many new bytes.

Facts from the public code of slime (`disk_delta`), SGLang (`local_checkpoint`) and ModelExpress 0.7.
"""

from __future__ import annotations

import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import msgspec
import numpy as np
import numpy.typing as npt
import zstandard
from blake3 import blake3

from diffpack.bridges.bridge import Bridge, Export, Import
from diffpack.bridges.exporting import PARTIAL, ChangedTensor, changed_tensors, finished
from diffpack.bridges.importing import BaseTensor, Make, Whole, needed, refuse_missing, sorted_positions, write_patch
from diffpack.checkpoints.safetensors_header import make_header
from diffpack.checkpoints.safetensors_reader import ShardedSafetensorsCheckpoint
from diffpack.checkpoints.safetensors_writer import SafetensorsWriter
from diffpack.errors import CheckpointError, CorruptFileError, MissingDependencyError, UsageError, WrongBaseError
from diffpack.format.streams.zstd import decompress
from diffpack.support.names import printable
from diffpack.tensors.dtypes import DTYPES
from diffpack.tensors.info import TensorInfo

INDEX = "model.safetensors.index.json"
_SHARD = "model-00000-of-00001.safetensors"  # slime counts from 0
_ENCODINGS = ("xor", "overwrite")
_LEVEL = 1  # what the trainers use: the delta is written once and read once
_MOST_OVERWRITTEN = 1 << 32  # bytes of a tensor that u32 positions reach
_VERSION = re.compile(r"[0-9]{1,18}")

Bytes = npt.NDArray[np.uint8]


class _Index(msgspec.Struct, frozen=True):
    version: str
    base_version: str
    delta_encoding: str
    compression_format: str
    checksum_format: str
    weight_map: dict[str, str]
    total_size: Any = None  # bytes, as in Hugging Face's indexes: 0 says that nothing changed


class _Hasher(Protocol):
    def update(self, data: Any, /) -> object: ...
    def hexdigest(self) -> str: ...


class _Adler32:
    """Adler-32 as 8 hex digits."""

    def __init__(self) -> None:
        self._value = 1

    def update(self, data: Any, /) -> None:
        self._value = zlib.adler32(data, self._value)

    def hexdigest(self) -> str:
        return f"{self._value:08x}"


def _xxh3() -> _Hasher:
    try:
        import xxhash
    except ImportError:
        raise MissingDependencyError("xxhash", "sglang", "the checksum xxh3-128") from None
    hasher: _Hasher = xxhash.xxh3_128()
    return hasher


_CHECKSUMS: dict[str, Callable[[], _Hasher]] = {"blake3": blake3, "xxh3-128": _xxh3, "adler32": _Adler32}


def checksum(kind: str, data: Bytes) -> str:
    """The checksum of a tensor's bytes as hex. Raises `UsageError`, `MissingDependencyError`."""
    if kind not in _CHECKSUMS:
        raise UsageError(f"the checksum is one of {', '.join(_CHECKSUMS)}, not {kind!r}")
    hasher = _CHECKSUMS[kind]()
    hasher.update(data.data)
    return hasher.hexdigest()


def _detect(path: Path) -> bool:
    index = path / INDEX
    if not index.is_file():
        return False
    try:
        metadata = json.loads(index.read_bytes()).get("metadata", {})
    except (ValueError, AttributeError, RecursionError):
        return False
    return isinstance(metadata, dict) and "delta_encoding" in metadata


def _parse_index(path: Path) -> _Index:
    try:
        decoded = json.loads(path.read_bytes(), object_pairs_hook=partial(_unique, where=str(path)))
        index = msgspec.convert({**decoded["metadata"], "weight_map": decoded["weight_map"]}, _Index)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    except (msgspec.MsgspecError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptFileError(f"{path}: not the index of a delta: {error}") from None
    if index.delta_encoding not in _ENCODINGS:
        raise UsageError(
            f"{path}: the encoding {printable(index.delta_encoding)!r} is not one of {', '.join(_ENCODINGS)}"
        )
    if index.compression_format != "zstd":
        raise UsageError(f"{path}: compressed as {printable(index.compression_format)!r}; only zstd is known")
    if index.checksum_format not in _CHECKSUMS:
        raise UsageError(f"{path}: the checksum {printable(index.checksum_format)!r} is unknown")
    return index


def _unique(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    """A JSON object whose members have names of their own: else readers would take one or the other."""
    members = dict(pairs)
    if len(members) < len(pairs):
        twice = next(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
        raise CorruptFileError(f"{where}: {printable(twice)} stands there twice")
    return members


def _read(job: Import, file: BinaryIO) -> None:
    path = job.source / INDEX if job.source.is_dir() else job.source
    index = _parse_index(path)
    expected = job.options.get("base_version")
    if expected is not None and _number(expected) != _number(index.base_version):
        raise WrongBaseError(f"{path}: builds on version {printable(index.base_version)}, not on {expected}")
    changes: dict[str, Make] = {}
    if index.weight_map:
        delta = ShardedSafetensorsCheckpoint(path)
        for name in delta.tensors:
            if name not in index.weight_map:
                raise CorruptFileError(f"{path}: {printable(name)} is in a shard but not in the index")
            changes[name] = partial(_apply, delta, name, index)
    refuse_missing(job, changes)
    job.notes.append(f"version {printable(index.version)} of a stream, builds on {printable(index.base_version)}")
    recipe = {"version": index.version, "base_version": index.base_version}
    write_patch(job, file, changes, recipe, says_nothing=index.total_size == 0)


def _number(version: str) -> str:
    """A version, written so that 7 and 000007 are the same."""
    return str(int(version)) if _VERSION.fullmatch(version) else version


def _apply(delta: ShardedSafetensorsCheckpoint, name: str, index: _Index, base: BaseTensor | None) -> Whole:
    where = f"{delta.source}: {printable(name)}"
    info, before = needed(base, where)
    stored = delta.info(name)
    if stored.dtype.name != "U8":
        raise CorruptFileError(f"{where}: a compressed delta is of U8, not {stored.dtype.name}")
    frame = delta.words(name).tobytes()
    old = before.view("u1")
    new = _xor(frame, old, where) if index.delta_encoding == "xor" else _overwrite(frame, old, where)
    recorded = delta.shards[index.weight_map[name]].header.metadata.get(name)
    if checksum(index.checksum_format, new) != recorded:
        raise WrongBaseError(
            f"{where}: does not lead to the checksum recorded: the base is not version "
            f"{printable(index.base_version)}, or the delta is damaged",
            (name,),
        )
    return Whole(info, new.view(info.dtype.word))


def _xor(frame: bytes, old: Bytes, where: str) -> Bytes:
    plain = _decompress(frame, old.size, old.size, where)
    return np.frombuffer(plain, np.uint8) ^ old


def _overwrite(frame: bytes, old: Bytes, where: str) -> Bytes:
    plain = _decompress(frame, 4, 4 + 5 * old.size, where)
    count = int.from_bytes(plain[:4], "little")
    if len(plain) != 4 + 5 * count:
        raise CorruptFileError(f"{where}: {len(plain)} bytes for {count} changed ones")
    positions, order = sorted_positions(np.frombuffer(plain, "<u4", count, 4), old.size, where)
    values = np.frombuffer(plain, np.uint8, count, 4 + 4 * count)
    new = np.array(old)
    new[positions] = values if order is None else values[order]
    return new


def _decompress(frame: bytes, least: int, most: int, where: str) -> bytes:
    """Decompress one frame of `least` to `most` bytes: the size it claims is compared before memory is taken."""
    try:
        size = zstandard.get_frame_parameters(frame).content_size
    except zstandard.ZstdError as error:
        raise CorruptFileError(f"{where}: not a zstd frame: {error}") from None
    if not least <= size <= most:
        raise CorruptFileError(f"{where}: a zstd frame of {size} bytes, where {least} to {most} are expected")
    return decompress(frame, size, where, "")


def _write(job: Export) -> bool:
    encoding = job.options.get("encoding", "xor")
    kind = job.options.get("checksum", "blake3")
    version = job.options.get("version", "1")
    if encoding not in _ENCODINGS:
        raise UsageError(f"the encoding is one of {', '.join(_ENCODINGS)}, not {encoding!r}")
    if not _VERSION.fullmatch(version) or not int(version):
        raise UsageError(f"a version is a number from 1 on, not {version!r}")
    base_version = job.options.get("base_version", str(int(version) - 1))
    if not _VERSION.fullmatch(base_version):
        raise UsageError(f"a base version is a number, not {base_version!r}")
    checksum(kind, np.empty(0, np.uint8))
    frames: dict[str, Bytes] = {}
    sums: dict[str, str] = {}
    for tensor in changed_tensors(job):
        frames[tensor.name] = np.frombuffer(_compress(tensor, encoding, job), np.uint8)
        sums[tensor.name] = checksum(kind, tensor.after.view("u1"))
    metadata = {
        "version": f"{int(version):06d}",
        "base_version": f"{int(base_version):06d}",
        "delta_encoding": encoding,
        "compression_format": "zstd",
        "checksum_format": kind,
    }
    _write_folder(job, metadata, frames, sums)
    return finished(job)


def _compress(tensor: ChangedTensor, encoding: str, job: Export) -> bytes:
    old, new = tensor.before.view("u1"), tensor.after.view("u1")
    if encoding == "xor":
        plain = (old ^ new).tobytes()
    elif new.size >= _MOST_OVERWRITTEN:
        raise UsageError(
            f"{job.diff.name}: {printable(tensor.name)} is over 4 GiB, where overwrite ends: use encoding=xor"
        )
    else:
        positions = np.flatnonzero(old != new)
        plain = positions.size.to_bytes(4, "little") + positions.astype("<u4").tobytes() + new[positions].tobytes()
    return zstandard.ZstdCompressor(level=_LEVEL, write_content_size=True).compress(plain)


def _write_folder(
    job: Export, metadata: Mapping[str, str], frames: Mapping[str, Bytes], sums: Mapping[str, str]
) -> None:
    with job.folder() as folder:
        if frames:
            header = make_header(
                {name: TensorInfo(DTYPES["U8"], (frame.size,)) for name, frame in frames.items()}, sums
            )
            with SafetensorsWriter([(folder / _SHARD, header)]) as writer:
                for name, frame in frames.items():
                    writer.write(name, 0, frame)
        said = metadata if frames else {**metadata, "total_size": 0}
        index = {"metadata": said, "weight_map": dict.fromkeys(frames, _SHARD)}
        (folder / INDEX).write_text(json.dumps(index, indent=1) + "\n")


BRIDGE = Bridge(
    _detect,
    _read,
    _write,
    read_options={"base_version": "refuse a delta that builds on another version"},
    write_options={
        "encoding": "xor or overwrite",
        "checksum": "blake3, xxh3-128 or adler32",
        "version": "the version this is, from 1 on",
        "base_version": "the version it builds on (one less)",
        **PARTIAL,
    },
)
