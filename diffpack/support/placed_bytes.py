"""Bytes put at their place in a file, from several threads, in any order."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

_SEEKING = threading.Lock()  # where there is no pwrite, a descriptor has one place for all threads


def put(descriptor: int, offset: int, data: bytes | npt.NDArray[Any]) -> None:
    """Write all of `data` at a byte offset. Raises `OSError`."""
    view = memoryview(data) if isinstance(data, bytes) else np.ascontiguousarray(data).view("u1").data
    while view:
        written = _put_some(descriptor, view, offset)
        view, offset = view[written:], offset + written


def _put_some(descriptor: int, view: memoryview, offset: int) -> int:
    pwrite: Callable[[int, memoryview, int], int] | None = getattr(os, "pwrite", None)
    if pwrite is not None:
        return pwrite(descriptor, view, offset)
    with _SEEKING:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.write(descriptor, view)


def reserve(descriptor: int, size: int) -> None:
    """Take the disk space of a file now, so that a full disk is known before the work is done. Raises `OSError`."""
    fallocate = getattr(os, "posix_fallocate", None)
    if fallocate is not None and size:
        try:
            fallocate(descriptor, 0, size)
            return
        except OSError as error:  # not every file system can
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise
    os.ftruncate(descriptor, size)
