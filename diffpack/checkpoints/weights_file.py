"""A file of weights, read by offset from several threads, also while something cuts it short.

Reading a memory map past the file's present end kills the process, and no check before the access can rule that out. So
whatever is walked part by part is read into memory of its own (`FileWords`), where a shorter file is only a short read;
that is as fast as walking a map. A map is what `words` gives, of a whole tensor: the file's size is looked at before.
"""

from __future__ import annotations

import errno
import io
import mmap as memory_map
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffpack.errors import CheckpointError
from diffpack.support.pooled_file import PooledFile
from diffpack.tensors.dtypes import Positions, Words
from diffpack.tensors.info import BLOCK_WORDS

_NO_MAPS = frozenset({errno.ENODEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS})
"""What mmap fails with on file systems that lack it."""
MOST_MAPPED = 64
"""Files that are mapped at a time: each map holds its file open. Of more shards the words are read."""
_FAR_WORDS = 1 << 14
"""Words that are not wanted between two that are: from here on a second read takes less time than reading them all."""
_KEPT_BYTES = 16 << 20
"""Freed memory that the C library may keep for the next blocks: a few of each thread's."""


_MAPS: weakref.WeakSet[memory_map.mmap] = weakref.WeakSet()


class WeightsFile:
    """An open file. `size` is what it was when it was opened; with `mmap` false it is never mapped.

    `notes` grow by a remark if the file system has no maps: then `words` reads, as without `mmap`. All methods raise
    `CheckpointError` if the file cannot be read or mapped, has become too short, or was closed.
    """

    def __init__(self, path: Path, notes: list[str] | None = None, *, mmap: bool = True) -> None:
        self.path = path
        try:
            self._pooled = PooledFile(path)
        except OSError as error:
            raise self._failed("read", error) from error
        self._close = weakref.finalize(self, self._pooled.close)
        self.size = self._pooled.size
        self._maps = mmap and self.size > 0 and self._can_be_mapped()
        self._map: memory_map.mmap | None = None
        if mmap and self.size and not self._maps and notes is not None:
            notes.append(f"{path}: its file system has no memory maps: it is read instead")
        self._lock = threading.Lock()
        _keep_freed_memory()

    def read(self, offset: int, length: int) -> bytes:
        """Read exactly `length` bytes."""
        buffer = bytearray(length)
        self._fill(memoryview(buffer), offset)
        return bytes(buffer)

    def read_words(self, offset: int, count: int, dtype: np.dtype[Any]) -> Words:
        """Read words into new memory."""
        words = np.empty(count, dtype)
        if count:
            self._fill(words.view(np.uint8).data, offset)
        words.flags.writeable = False
        return words

    def words(self, offset: int, count: int, dtype: np.dtype[Any]) -> Words:
        """Words, read-only: a view of the map, else read.

        A view must not be used once the file is shorter: what is read in parts is safer read from `FileWords`.
        """
        whole = self._mapped() if count else None
        if whole is None:
            return self.read_words(offset, count, dtype)
        self._refuse_shorter(offset + count * dtype.itemsize)
        return np.frombuffer(whole, dtype, count, offset)

    def close(self) -> None:
        """Close the file; arrays handed out before stay valid."""
        self._close()
        self._map = None

    def _can_be_mapped(self) -> bool:
        try:
            with self._pooled as descriptor:
                memory_map.mmap(descriptor, 1, access=memory_map.ACCESS_READ).close()
        except OSError as error:
            return error.errno not in _NO_MAPS  # others are told where the whole file is mapped
        except ValueError:  # it became shorter just now
            return True
        return True

    def _mapped(self) -> memory_map.mmap | None:
        with self._lock:
            if self._map is None and self._maps and len(_MAPS) < MOST_MAPPED:
                self._refuse_shorter(self.size)
                try:
                    with self._pooled as descriptor:
                        self._map = memory_map.mmap(descriptor, self.size, access=memory_map.ACCESS_READ)
                    _MAPS.add(self._map)
                except OSError as error:
                    raise self._failed("mapped", error) from error
                except ValueError:  # it became shorter just now
                    self._refuse_shorter(self.size)
                    raise
            return self._map

    def _fill(self, buffer: memoryview, offset: int) -> None:
        while buffer:
            self._refuse_closed()
            try:
                with self._pooled as descriptor:
                    count = _read_some(descriptor, buffer, offset, self._lock)
            except OSError as error:
                raise self._failed("read", error) from error
            if not count:
                self._refuse_shorter(offset + len(buffer))
                raise CheckpointError(f"{self.path}: ends before its byte {offset + len(buffer)}")
            buffer, offset = buffer[count:], offset + count

    def _refuse_shorter(self, end: int) -> None:
        self._refuse_closed()
        try:
            with self._pooled as descriptor:
                now = os.fstat(descriptor).st_size
        except OSError as error:
            raise self._failed("read", error) from error
        if now < min(end, self.size):
            raise CheckpointError(
                f"{self.path}: became shorter while it was read ({now:,} bytes, {self.size:,} before): "
                "something writes it; try again with a copy that nothing changes"
            )
        if self.size < end:
            raise CheckpointError(f"{self.path}: ends before its byte {end:,}: truncated or damaged")

    def _failed(self, what: str, error: OSError) -> CheckpointError:
        return CheckpointError(f"{self.path}: cannot be {what}: {error.strerror}")

    def _refuse_closed(self) -> None:
        if not self._close.alive:
            raise CheckpointError(f"{self.path}: asked for after close")


class FileWords:
    """Words of a file, part by part (a `WordSource`): each part is read into new memory when it is asked for.

    Raises `CheckpointError` if the file has become shorter, `IndexError` for positions outside.
    """

    def __init__(self, file: WeightsFile, offset: int, count: int, dtype: np.dtype[Any]) -> None:
        self.file = file
        self.offset = offset
        self.size = count
        self.dtype = dtype

    def longer(self, count: int) -> FileWords:
        """The `count` words that begin where these do."""
        return FileWords(self.file, self.offset, count, self.dtype)

    def __getitem__(self, part: slice | Positions, /) -> Words:
        """Read a slice of step 1, or the words at increasing positions."""
        if isinstance(part, slice):
            start, stop, step = part.indices(self.size)
            if step != 1:
                raise IndexError("words of a file are read in slices of step 1")
            return self.file.read_words(self.offset + start * self.dtype.itemsize, max(0, stop - start), self.dtype)
        return self._at(part)

    def _at(self, positions: Positions) -> Words:
        """Read the stretches that hold positions, none longer than a block, nor with far words between."""
        gaps = np.diff(positions)
        if positions.size and (positions[0] < 0 or positions[-1] >= self.size or (gaps <= 0).any()):
            raise IndexError(f"positions are not increasing, or outside of {self.size} words")
        found = np.empty(positions.size, self.dtype)
        first = 0
        for end in (*(np.flatnonzero(gaps > _FAR_WORDS) + 1).tolist(), positions.size):
            while first < end:
                start = int(positions[first])
                last = first + int(np.searchsorted(positions[first:end], start + BLOCK_WORDS))
                stretch = self[start : int(positions[last - 1]) + 1]
                found[first:last] = stretch[positions[first:last] - start]
                first = last
        found.flags.writeable = False
        return found


class FileStream(io.RawIOBase):
    """A weights file, or `size` bytes of it from `start`, as zipfile, pickle and h5py read one.

    Raises as `WeightsFile`, `OSError` for a place before its beginning.
    """

    def __init__(self, file: WeightsFile, start: int = 0, size: int | None = None) -> None:
        self._file = file
        self._start = start
        self._size = file.size - start if size is None else size
        self._at = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise OSError("a place before the file's beginning")
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        """The place."""
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Read what is left, at most as much as is asked for."""
        view = memoryview(buffer).cast("B")
        part = self._file.read(self._start + self._at, max(0, min(len(view), self._size - self._at)))
        view[: len(part)] = part
        self._at += len(part)
        return len(part)


def _keep_freed_memory() -> None:
    """Let the C library keep what blocks were read into, instead of giving it back and faulting it in for each block.

    glibc gives memory back to the system from twice the size of the largest mapped piece it has seen freed. So one is
    freed here, whose pages nobody touches. Without it a quarter of the processor time of extract goes into page faults.
    """
    np.empty(_KEPT_BYTES // 2, np.uint8)


def _read_some(descriptor: int, buffer: memoryview, offset: int, lock: threading.Lock) -> int:
    preadv: Callable[[int, Sequence[memoryview], int], int] | None = getattr(os, "preadv", None)
    if preadv is not None:
        return preadv(descriptor, [buffer], offset)
    with lock:  # systems without preadv
        os.lseek(descriptor, offset, os.SEEK_SET)
        part = os.read(descriptor, len(buffer))
    buffer[: len(part)] = part
    return len(part)
