"""Zip archives of tensors, filled as their bytes come: one file that appears whole, or files of a caller's folder."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from diffpack.checkpoints.base import CheckpointWriter
from diffpack.checkpoints.written_file import writing
from diffpack.checkpoints.zip_layout import CHECKSUM_AT, ZipLayout
from diffpack.errors import CheckpointError
from diffpack.support.atomic import AtomicStack, atomic_file
from diffpack.support.placed_bytes import put, reserve

_CHECKSUM_BYTES = 4


class ZipWriter(CheckpointWriter):
    """Write one file in bounded memory, as its `filling` is laid out.

    Raises `CheckpointError` for a file that cannot be written, and on publishing for tensors not filled; `UsageError`
    for a file that exists, unless it may `replace` it.
    """

    def __init__(self, filling: ZipFilling, *, replace: bool = False) -> None:
        self._filling = filling
        self._stack = AtomicStack()
        try:
            with writing(filling.path):
                self._descriptor = self._stack.enter_context(atomic_file(filling.path, replace=replace)).fileno()
                filling.begin(self._descriptor)
        except BaseException:
            self._stack.discard()
            raise

    def write(self, name: str, offset: int, data: npt.NDArray[Any]) -> None:
        """Write a piece of a tensor at its place; see `CheckpointWriter.write`."""
        with writing(self._filling.path):
            self._filling.write(self._descriptor, name, offset, data)

    def publish(self) -> None:
        """Finish the file and rename it to its name."""
        try:
            with writing(self._filling.path):
                self._filling.finish(self._descriptor)
                self._stack.close()
        except BaseException:
            self._stack.discard()
            raise

    def discard(self) -> None:
        """Remove the temporary file."""
        self._stack.discard()


class ZipFilling:
    """One file whose layout is planned, while its tensors come; those `tied` have the bytes of other names."""

    def __init__(self, path: Path, layout: ZipLayout, tied: Collection[str] = ()) -> None:
        self.path = path
        self._tied = frozenset(tied)
        self._layout = layout
        self._checksums = {member.name: layout.checksums.get(member.name, 0) for member in layout.members}
        self._missing = {name: home.size for name, home in layout.homes.items() if name not in self._tied}
        self._lock = threading.Lock()

    def begin(self, descriptor: int) -> None:
        """Write what is known beforehand, and take the disk space."""
        reserve(descriptor, self._layout.end)
        for offset, piece in self._layout.pieces.items():
            put(descriptor, offset, piece)

    def write(self, descriptor: int, name: str, offset: int, data: npt.NDArray[Any]) -> None:
        """Write a piece; those of one tensor come in order, so that its checksum grows with them."""
        if name in self._tied:  # the same bytes come under the first name
            return
        home = self._layout.homes[name]
        if offset != home.size - self._missing[name]:
            raise ValueError(f"{name!r}: the piece at {offset} is not the next one")
        raw = np.ascontiguousarray(data).view(np.uint8)
        put(descriptor, home.start + offset, raw)
        checksum = zlib.crc32(raw.data, self._checksums[home.member.name])
        with self._lock:
            self._checksums[home.member.name] = checksum
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
