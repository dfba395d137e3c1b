"""A file for a library that an error in the middle of its work breaks."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, BinaryIO


class SteadyFile(io.RawIOBase):
    """An open file that never fails towards the library that reads and writes it: `check` tells of the first error.

    HDF5 does not let go of what could not be written: it tries again when its file is closed, when Python frees it, and
    when the process ends, which then ends by a segmentation fault. So after an error (a full disk) the library goes on
    with memory: what it writes is kept there, until it has closed its file. Not to be used in the main thread, where
    the exception of a signal could arise in here (see `aside`).
    """

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        file.flush()
        self._file = io.FileIO(file.fileno(), "r+", closefd=False)
        self._position = 0
        self._size = self._file.seek(0, io.SEEK_END)
        self._error: BaseException | None = None
        self._kept: list[tuple[int, bytes]] = []

    def check(self) -> None:
        """Raise the first error there was."""
        if self._error is not None:
            raise self._error

    def fail(self, error: BaseException) -> None:
        """Write no more: `check` raises this error, if it is the first."""
        self._error = self._error or error

    def readable(self) -> bool:
        """It is."""
        return True

    def writable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        """The place."""
        return self._position

    def truncate(self, size: int | None = None) -> int:
        """Cut the file off, or make it longer."""
        wanted = self._position if size is None else size
        if self._error is None:
            self._try(lambda: self._file.truncate(wanted))
        self._size = wanted
        return wanted

    def write(self, data: Any) -> int:
        """Write all of the data, in memory once the file has failed."""
        view = memoryview(data).cast("B")
        if self._error is None:
            self._try(lambda: self._write(self._position, view))
        if self._error is not None:
            self._kept.append((self._position, bytes(view)))
        self._position += len(view)
        if view:
            self._size = max(self._size, self._position)
        return len(view)

    def readinto(self, buffer: Any) -> int:
        """Read as much as is asked for; zeros where nothing was written."""
        view = memoryview(buffer).cast("B")
        view[:] = bytes(len(view))
        self._try(lambda: self._read(self._position, view))
        for start, data in self._kept:
            first, last = max(start, self._position), min(start + len(data), self._position + len(view))
            if first < last:
                view[first - self._position : last - self._position] = data[first - start : last - start]
        self._position += len(view)
        return len(view)

    def flush(self) -> None:
        """Nothing waits here."""

    def _try(self, action: Callable[[], object]) -> None:
        try:
            action()
        except Exception as error:
            self.fail(error)

    def _write(self, position: int, view: memoryview) -> None:
        self._file.seek(position)
        while view:
            view = view[self._file.write(view) or 0 :]

    def _read(self, position: int, view: memoryview) -> None:
        self._file.seek(position)
        while view:
            count = self._file.readinto(view)
            if not count:
                break
            view = view[count:]
