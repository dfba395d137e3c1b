"""safetensors files written in place into temporary siblings, tensor by tensor, from several threads."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy.typing as npt

from diffpack.checkpoints.base import CheckpointWriter
from diffpack.checkpoints.safetensors_header import MOST_HEADER_BYTES, parse_header
from diffpack.errors import CheckpointError, ResultMismatchError
from diffpack.support.atomic import AtomicStack, atomic_file
from diffpack.support.placed_bytes import put, reserve

_READ_BYTES = 1 << 20  # read back at a time


class SafetensorsWriter(CheckpointWriter):
    """Writes safetensors files whose headers are given: byte for byte what those headers describe.

    `extra` are other files, with their content. `sha256` are the digests that finished files must have; they are
    looked at before anything is renamed. Raises `CheckpointError`, before any byte is written, for a header that no
    reader would take, and `UsageError` for a file that exists, unless it may `replace` it.
    """

    def __init__(
        self,
        targets: Sequence[tuple[Path, bytes]],
        extra: Sequence[tuple[Path, bytes]] = (),
        sha256: Mapping[Path, str] | None = None,
        *,
        replace: bool = False,
    ) -> None:
        for path, raw in targets:
            if len(raw) > MOST_HEADER_BYTES:
                raise CheckpointError(
                    f"{path}: its header would take {len(raw):,} bytes, and readers of safetensors take at most "
                    f"{MOST_HEADER_BYTES:,}: write a folder in shards (as that of a base in shards is), .bin or .h5"
                )
        self._stack = AtomicStack()
        self._expected = dict(sha256 or {})
        self._files: dict[Path, BinaryIO] = {}
        self._homes: dict[str, tuple[int, int]] = {}
        try:
            for path, raw in targets:
                header = parse_header(raw, str(path))
                file = self._files[path] = self._stack.enter_context(atomic_file(path, replace=replace))
                file.write(len(raw).to_bytes(8, "little") + raw)
                file.flush()
                start = 8 + len(raw)
                reserve(file.fileno(), start + header.data_bytes)
                self._homes |= {name: (file.fileno(), start + at) for name, at in header.starts.items()}
            for path, content in extra:
                self._files[path] = self._stack.enter_context(atomic_file(path, replace=replace))
                self._files[path].write(content)
        except BaseException:
            self._stack.discard()
            raise

    def write(self, name: str, offset: int, data: npt.NDArray[Any]) -> None:
        """Write words at their place in the file."""
        descriptor, start = self._homes[name]
        put(descriptor, start + offset, data)

    def publish(self) -> None:
        """Rename every file to its name. Raises `ResultMismatchError` if one has another digest than it must."""
        try:
            for path, expected in self._expected.items():
                self._check(path, expected)
        except BaseException:
            self._stack.discard()
            raise
        self._stack.close()

    def _check(self, path: Path, expected: str) -> None:
        file, digest = self._files[path], hashlib.sha256()
        file.seek(0)
        while block := file.read(_READ_BYTES):
            digest.update(block)
        if (found := digest.hexdigest()) != expected:
            raise ResultMismatchError(
                f"{path.name}: written as the diff describes it, its SHA-256 is {found}, recorded is {expected} [L7]"
            )

    def discard(self) -> None:
        """Remove the temporary files."""
        self._stack.discard()
