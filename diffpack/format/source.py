"""Where a reader gets its bytes: ranges of a file or of memory."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Protocol

from diffpack.errors import DiffpackError, TruncatedFileError
from diffpack.support.names import printable


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


_OF_FOLDER = "`diffpack extract` makes a diff of a model's folder, `diffpack convert` of an adapter's"


class FileSource:
    """A file, read by offset. It owns `descriptor` and closes it when it is closed or no longer used."""

    def __init__(self, descriptor: int, name: str) -> None:
        self.name = name
        self.size = os.fstat(descriptor).st_size
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._seeking = threading.Lock()
        self._readers = 0
        self._closed = False
        self._release = weakref.finalize(self, os.close, descriptor)

    @classmethod
    def open(cls, path: Path) -> FileSource:
        """Open a path. Raises `DiffpackError` if it cannot be opened."""
        try:
            if path.is_dir():
                raise DiffpackError(f"{path}: a folder, not a diff", hint=_OF_FOLDER)
            if path.exists() and not path.is_file():
                raise DiffpackError(f"{path}: no regular file; - reads standard input")
            return cls(os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0)), str(path))
        except OSError as error:
            raise DiffpackError(f"{path}: cannot be opened: {error.strerror}") from error
        except ValueError as error:  # NUL in its name
            raise DiffpackError(f"{printable(str(path))}: cannot be opened: {error}") from error

    @classmethod
    def share(cls, file: BinaryIO, name: str) -> FileSource:
        """Read a file that somebody else opened and may close."""
        return cls(os.dup(file.fileno()), name)

    def read(self, offset: int, length: int) -> bytes:
        """Read exactly `length` bytes, or raise `TruncatedFileError`."""
        parts = []
        missing = length
        while missing:
            part = self._read_some(offset, missing)
            if not part:
                raise TruncatedFileError(f"{self.name}: ends too early", "F1")
            parts.append(part)
            offset += len(part)
            missing -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _read_some(self, offset: int, length: int) -> bytes:
        with self._lock:
            if self._closed:
                raise DiffpackError(f"{self.name}: is closed")
            self._readers += 1
        try:
            return self._read_at(offset, length)
        except OSError as error:
            raise DiffpackError(f"{self.name}: cannot be read: {error.strerror}") from error
        finally:
            with self._lock:
                self._readers -= 1
                self._let_go()

    def _read_at(self, offset: int, length: int) -> bytes:
        pread: Callable[[int, int, int], bytes] | None = getattr(os, "pread", None)
        if pread is not None:
            return pread(self._descriptor, length, offset)
        with self._seeking:  # systems without pread
            os.lseek(self._descriptor, offset, os.SEEK_SET)
            return os.read(self._descriptor, length)

    def close(self) -> None:
        """Close the file, once nobody reads it any more: its descriptor may then be another file's."""
        with self._lock:
            self._closed = True
            self._let_go()

    def _let_go(self) -> None:
        if self._closed and not self._readers:
            self._release()
