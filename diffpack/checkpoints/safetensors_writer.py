"""safetensors files written in place, tensor by tensor, from several threads: one by itself, or those of a folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy.typing as npt

from diffpack.checkpoints.base import CheckpointWriter, Place
from diffpack.checkpoints.safetensors_header import MOST_HEADER_BYTES, parse_header
from diffpack.checkpoints.written_file import CREATE, create, opened, writing
from diffpack.errors import CheckpointError, ResultMismatchError
from diffpack.support.atomic import AtomicStack, atomic_file
from diffpack.support.placed_bytes import put, reserve
from diffpack.tensors.dtypes import Words

File = TypeVar("File", int, Path)

_READ_BYTES = 1 << 20  # read back at a time
_PREFIX = 8  # bytes that tell the header's length


class SafetensorsWriter(CheckpointWriter):
    """Writes safetensors files whose headers are given: byte for byte what those headers describe.

    `sha256` are the digests that finished files must have; they are looked at before anything is renamed. Raises
    `CheckpointError`, before any byte is written, for a header that no reader would take, `UsageError` for a file that
    exists, unless it may `replace` it, and `OutputError` for what cannot be written. All files are open until the end.
    """

    def __init__(
        self, targets: Sequence[tuple[Path, bytes]], sha256: Mapping[Path, str] | None = None, *, replace: bool = False
    ) -> None:
        _refuse_large_headers(targets)
        self._stack = AtomicStack()
        self._expected = dict(sha256 or {})
        self._files: dict[Path, int] = {}
        self._paths: dict[int, Path] = {}
        self._homes: dict[str, tuple[int, int]] = {}
        try:
            for path, raw in targets:
                file = self._files[path] = self._stack.enter_context(atomic_file(path, replace=replace)).fileno()
                self._paths[file] = path
                with writing(path):
                    starts = _begin(file, raw, path)
                self._homes |= {name: (file, start) for name, start in starts.items()}
        except BaseException:
            self._stack.discard()
            raise

    def write(self, name: str, offset: int, data: npt.NDArray[Any]) -> None:
        """Write words at their place in the file."""
        descriptor, start = self._homes[name]
        with writing(self._paths[descriptor]):
            put(descriptor, start + offset, data)

    def write_block(self, words: Words, places: Sequence[Place]) -> None:
        """Write words at their places, neighbours together."""
        for descriptor, offset, first, stop in _stretches(words, places, self._homes):
            with writing(self._paths[descriptor]):
                put(descriptor, offset, words[first:stop])

    def publish(self) -> None:
        """Rename every file to its name. Raises `ResultMismatchError` if one has another digest than it must."""
        try:
            for path, expected in self._expected.items():
                _check(self._files[path], path, expected)
        except BaseException:
            self._stack.discard()
            raise
        self._stack.close()

    def discard(self) -> None:
        """Remove the temporary files."""
        self._stack.discard()


class ShardedSafetensorsWriter(CheckpointWriter):
    """Writes the safetensors files of a folder that exists and is the caller's to publish.

    `targets` and `sha256` are as of `SafetensorsWriter`, `extra` other files with their content. Files are opened for
    each piece: there may be more than can be open. Raises as `SafetensorsWriter`.
    """

    def __init__(
        self,
        targets: Sequence[tuple[Path, bytes]],
        extra: Sequence[tuple[Path, bytes]] = (),
        sha256: Mapping[Path, str] | None = None,
    ) -> None:
        _refuse_large_headers(targets)
        self._expected = dict(sha256 or {})
        self._paths = [*(path for path, _ in targets), *(path for path, _ in extra)]
        self._homes: dict[str, tuple[Path, int]] = {}
        try:
            for path, raw in targets:
                with writing(path), opened(path, CREATE) as descriptor:
                    starts = _begin(descriptor, raw, path)
                self._homes |= {name: (path, start) for name, start in starts.items()}
            for path, content in extra:
                create(path, content)
        except BaseException:
            self.discard()
            raise

    @property
    def names(self) -> Collection[str]:
        """The tensors that the headers tell of."""
        return self._homes.keys()

    def write(self, name: str, offset: int, data: npt.NDArray[Any]) -> None:
        """Write words at their place in their file."""
        path, start = self._homes[name]
        with writing(path), opened(path) as descriptor:
            put(descriptor, start + offset, data)

    def write_block(self, words: Words, places: Sequence[Place]) -> None:
        """Write words at their places, neighbours together."""
        for path, offset, first, stop in _stretches(words, places, self._homes):
            with writing(path), opened(path) as descriptor:
                put(descriptor, offset, words[first:stop])

    def publish(self) -> None:
        """Compare the digests. Raises `ResultMismatchError`."""
        for path, expected in self._expected.items():
            with opened(path) as descriptor:
                _check(descriptor, path, expected)

    def discard(self) -> None:
        """Remove the files."""
        for path in self._paths:
            path.unlink(missing_ok=True)


def _stretches(
    words: Words, places: Sequence[Place], homes: Mapping[str, tuple[File, int]]
) -> Iterator[tuple[File, int, int, int]]:
    """The pieces of a block that lie together in a file: that file, the byte offset in it, which words they are."""
    before: tuple[File, int, int, int] | None = None
    for place in places:
        file, start = homes[place.name]
        at, first = start + place.offset, place.first
        if before is not None:
            home, begin, own, end = before
            if home == file and end == first and begin + (end - own) * words.itemsize == at:
                at, first = begin, own
            else:
                yield before
        before = file, at, first, place.stop
    if before is not None:
        yield before


def _refuse_large_headers(targets: Sequence[tuple[Path, bytes]]) -> None:
    """Raise `CheckpointError` for a header that no reader would take."""
    for path, raw in targets:
        if len(raw) > MOST_HEADER_BYTES:
            raise CheckpointError(
                f"{path}: its header would take {len(raw):,} bytes, and readers of safetensors take at most "
                f"{MOST_HEADER_BYTES:,}: write a folder in shards (as that of a base in shards is), .bin or .h5"
            )


def _begin(descriptor: int, raw: bytes, path: Path) -> dict[str, int]:
    """Write a file's header and take the disk space; tell where each tensor starts."""
    header = parse_header(raw, str(path))
    start = _PREFIX + len(raw)
    reserve(descriptor, start + header.data_bytes)
    put(descriptor, 0, len(raw).to_bytes(_PREFIX, "little") + raw)
    return {name: start + at for name, at in header.starts.items()}


def _check(descriptor: int, path: Path, expected: str) -> None:
    digest = hashlib.sha256()
    os.lseek(descriptor, 0, os.SEEK_SET)
    while block := os.read(descriptor, _READ_BYTES):
        digest.update(block)
    if (found := digest.hexdigest()) != expected:
        raise ResultMismatchError(
            f"{path.name}: written as the diff describes it, its SHA-256 is {found}, recorded is {expected} [L7]"
        )
