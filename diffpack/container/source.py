"""Where a reader gets its bytes: ranges of a file or of memory."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Protocol

from diffpack.errors import DiffpackError, TruncatedFileError


class ByteSource(Protocol):
    """Random access to the bytes of one diff; `name` is what errors call it. Safe from several threads."""

    name: str
    size: int

    def read(self, offset: int, length: int) -> bytes:
        """Read exactly `length` bytes, or raise `TruncatedFileError`."""
        ...

    def close(self) -> None:
        """Release the file."""
        ...


class MemorySource:
    """Bytes in memory."""

    def __init__(self, data: bytes, name: str) -> None:
        self.name = name
        self.size = len(data)
        self._data = data

    def read(self, offset: int, length: int) -> bytes:
        """Read exactly `length` bytes, or raise `TruncatedFileError`."""
        part = self._data[offset : offset + length]
        if len(part) != length:
            raise TruncatedFileError(f"{self.name}: ends too early", "F1")
        return part

    def close(self) -> None:
        """Nothing to release."""


class FileSource:
    """An open binary file, which it owns if `owned`."""

    def __init__(self, file: BinaryIO, name: str, *, owned: bool = True) -> None:
        self.name = name
        self._file = file
        self._owned = owned
        self._lock = threading.Lock()
        self.size = os.fstat(file.fileno()).st_size

    @classmethod
    def open(cls, path: Path) -> FileSource:
        """Open a path. Raises `DiffpackError` if it cannot be opened."""
        try:
            return cls(path.open("rb"), str(path))
        except OSError as error:
            raise DiffpackError(f"{path}: cannot be opened: {error.strerror}") from error

    def read(self, offset: int, length: int) -> bytes:
        """Read exactly `length` bytes, or raise `TruncatedFileError`."""
        pread: Callable[[int, int, int], bytes] | None = getattr(os, "pread", None)
        parts = []
        missing = length
        while missing:
            if pread is not None:
                part = pread(self._file.fileno(), missing, offset)
            else:
                with self._lock:
                    self._file.seek(offset)
                    part = self._file.read(missing)
            if not part:
                raise TruncatedFileError(f"{self.name}: ends too early", "F1")
            parts.append(part)
            offset += len(part)
            missing -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """Close the file if it is owned."""
        if self._owned:
            with contextlib.suppress(OSError):
                self._file.close()
