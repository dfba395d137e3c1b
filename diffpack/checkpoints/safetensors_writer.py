"""safetensors files written in place into temporary siblings, tensor by tensor, from several threads."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from diffpack.checkpoints.base import CheckpointWriter
from diffpack.checkpoints.safetensors_header import parse_header
from diffpack.support.atomic import AtomicStack, atomic_file


class SafetensorsWriter(CheckpointWriter):
    """Writes safetensors files whose headers are given: byte for byte what those headers describe."""

    def __init__(self, targets: Sequence[tuple[Path, bytes]], extra: Sequence[tuple[Path, bytes]] = ()) -> None:
        self._stack = AtomicStack()
        self._lock = threading.Lock()
        self._homes: dict[str, tuple[int, int]] = {}
        try:
            for path, raw in targets:
                header = parse_header(raw, str(path))
                file = self._stack.enter_context(atomic_file(path))
                file.write(len(raw).to_bytes(8, "little") + raw)
                file.flush()
                start = 8 + len(raw)
                _reserve(file.fileno(), start + header.data_bytes)
                self._homes |= {name: (file.fileno(), start + at) for name, at in header.starts.items()}
            for path, content in extra:
                self._stack.enter_context(atomic_file(path)).write(content)
        except BaseException:
            self._stack.discard()
            raise

    def write(self, name: str, offset: int, data: npt.NDArray[Any]) -> None:
        """Write words at their place in the file."""
        descriptor, start = self._homes[name]
        view = np.ascontiguousarray(data).view("u1").data
        at = start + offset
        while view:
            written = self._write_some(descriptor, view, at)
            view, at = view[written:], at + written

    def _write_some(self, descriptor: int, view: memoryview, at: int) -> int:
        pwrite: Callable[[int, memoryview, int], int] | None = getattr(os, "pwrite", None)
        if pwrite is not None:
            return pwrite(descriptor, view, at)
        with self._lock:  # systems without pwrite
            os.lseek(descriptor, at, os.SEEK_SET)
            return os.write(descriptor, view)

    def publish(self) -> None:
        """Rename every file to its name."""
        self._stack.close()

    def discard(self) -> None:
        """Remove the temporary files."""
        self._stack.discard()


def _reserve(descriptor: int, size: int) -> None:
    """Take the disk space now, so that a full disk is known before the work is done."""
    fallocate = getattr(os, "posix_fallocate", None)
    if fallocate is not None and size:
        try:
            fallocate(descriptor, 0, size)
            return
        except OSError as error:  # not every file system can
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise
    os.ftruncate(descriptor, size)
