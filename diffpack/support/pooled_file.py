"""Files open for reading, of which there may be more than a process can have open: those not used lately are closed.

They are opened again when they are read again, and must be the same files then.
"""

from __future__ import annotations

import os
import stat
import threading
from collections import OrderedDict
from pathlib import Path
from types import TracebackType

from diffpack.errors import CheckpointError

MOST_OPEN = 128
"""Files that stay open though nobody reads them; a process may have 256 open on macOS, 1,024 on Linux."""

_LOCK = threading.RLock()  # a collected file may be closed while this thread holds it
_IDLE: OrderedDict[PooledFile, None] = OrderedDict()
"""Open files that nobody reads now, the one that was used least lately first."""


class PooledFile:
    """A file open for reading; `size` is its size when it was opened. Safe from several threads. Raises `OSError`.

    `with file as descriptor` is entered for each read of a model, and so is no generator.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._users = 0
        self._closed = False
        self._descriptor: int | None = _open(path)
        found = os.fstat(self._descriptor)
        self.size = found.st_size
        self._identity = found.st_dev, found.st_ino
        with _LOCK:
            self._rest()

    def __enter__(self) -> int:
        """The open file's descriptor, for as long as the body runs; bodies may run at once and within each other.

        Raises `CheckpointError` if it has another file's name meanwhile, or was closed.
        """
        with _LOCK:
            return self._take()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _LOCK:
            self._users -= 1
            if not self._users:
                self._rest()

    def close(self) -> None:
        """Close it, once nobody reads it any more."""
        with _LOCK:
            self._closed = True
            if not self._users:
                self._rest()

    def _take(self) -> int:
        if self._closed:
            raise CheckpointError(f"{self.path}: asked for after close")
        if self._descriptor is None:
            descriptor = _open(self.path)
            found = os.fstat(descriptor)
            if (found.st_dev, found.st_ino) != self._identity:
                os.close(descriptor)
                raise CheckpointError(f"{self.path}: became another file while it was read; run it again")
            self._descriptor = descriptor
        _IDLE.pop(self, None)
        self._users += 1
        return self._descriptor

    def _rest(self) -> None:
        """Keep the file open for its next use, and close those that have waited longest, if they are too many."""
        _IDLE.pop(self, None)
        if self._closed:
            self._let_go()
        elif self._descriptor is not None:
            _IDLE[self] = None
        while len(_IDLE) > MOST_OPEN:
            _IDLE.popitem(last=False)[0]._let_go()

    def _let_go(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _open(path: Path) -> int:
    """Open a file. Raises `CheckpointError` for a pipe or a device, without waiting for what it may give."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
    mode = os.fstat(descriptor).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # that of a folder tells that it cannot be read
        os.close(descriptor)
        raise CheckpointError(f"{path}: no regular file: what is in it is read in any order; save it as a file")
    return descriptor
