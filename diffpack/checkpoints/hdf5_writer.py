"""HDF5 checkpoints, to write: a new file with the structure that is known, else in plain groups.

h5py is imported when the first writer is made, not before.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from diffpack.checkpoints.base import CheckpointWriter
from diffpack.checkpoints.hdf5_contents import LIBRARY, Stored, explained, import_h5py
from diffpack.checkpoints.hdf5_readback import WrittenDataset, bytes_digest, check_written
from diffpack.checkpoints.hdf5_structure_writer import PLAIN, lay_out
from diffpack.errors import CheckpointError
from diffpack.format.hdf5_structure import FileStructure
from diffpack.support.aside import aside
from diffpack.support.atomic import AtomicStack, atomic_file
from diffpack.support.leftovers import lasting
from diffpack.support.steady_file import SteadyFile
from diffpack.tensors.dtypes import Words
from diffpack.tensors.info import TensorInfo

_ALIGNMENT = 64  # bytes; data that stands aligned in the file can be used without a copy
_NOT_WRITTEN = "cannot be written as HDF5"
_ALIGNED_FROM = 4096  # smaller datasets are cheap to copy and would waste the file's space


class Hdf5Writer(CheckpointWriter):
    """Write an HDF5 file with the groups, attributes, links and other data of `structure`.

    Tensors that it does not name go into plain groups. Raises `CheckpointError` for names HDF5 cannot hold, a file that
    cannot be written, and, on publishing, for tensors not filled or a file that does not read back as it was written;
    `UsageError` for a file that exists, unless it may `replace` it.
    """

    def __init__(
        self,
        path: Path,
        tensors: Mapping[str, TensorInfo],
        structure: FileStructure = PLAIN,
        *,
        replace: bool = False,
    ) -> None:
        _check_names(path, tensors)
        self._source = str(lasting(path))
        self._tensors = tensors
        self._buffers: dict[str, npt.NDArray[np.uint8]] = {}
        self._missing = {name: info.nbytes for name, info in tensors.items() if info.nbytes}
        self._digests: dict[str, bytes] = {}
        self._stack = AtomicStack()
        try:
            aside(lambda: self._open(path, structure, replace))
        except BaseException:
            self.discard()
            raise

    def _open(self, path: Path, structure: FileStructure, replace: bool) -> None:
        with LIBRARY, explained(self._source, _NOT_WRITTEN):
            part = self._stack.enter_context(atomic_file(path, replace=replace))
            self._path, self._part = Path(part.name), SteadyFile(part)
            self._file = _start(self._part, structure)
            self._stack.callback(self._close)
            self._slots = lay_out(self._file, structure, self._tensors)
            self._part.check()

    def _close(self) -> None:
        with LIBRARY:
            self._file.close()

    def write(self, name: str, offset: int, data: npt.NDArray[Any]) -> None:
        """Keep a piece of a tensor, and write the dataset once it is whole; see `CheckpointWriter.write`."""
        info = self._tensors[name]
        if name not in self._buffers:
            self._buffers[name] = np.empty(info.nbytes, np.uint8)
        self._buffers[name][offset : offset + data.nbytes] = np.ascontiguousarray(data).view(np.uint8)
        self._missing[name] -= data.nbytes
        if self._missing[name] == 0:
            words = self._buffers.pop(name).view(info.dtype.word)
            aside(lambda: self._write(name, words))
            del self._missing[name]

    def _write(self, name: str, words: Words) -> None:
        with LIBRARY, explained(f"{self._source}: {name!r}", _NOT_WRITTEN):
            self._digests[name] = _write(self._slots[name], words)
            self._part.check()

    def publish(self) -> None:
        """Close the file, read it back, and rename it to its name."""
        try:
            if self._missing:
                raise CheckpointError(f"{self._source}: {next(iter(self._missing))!r} was never written whole")
            aside(self._finish)
            with explained(self._source, _NOT_WRITTEN):
                self._stack.close()
        except BaseException:
            self.discard()
            raise

    def _finish(self) -> None:
        with LIBRARY, explained(self._source, _NOT_WRITTEN):
            written = {name: self._written(name) for name in self._slots}
            self._file.close()
            self._part.check()
        check_written(self._path, self._source, written)

    def _written(self, name: str) -> WrittenDataset:
        dataset = self._slots[name].dataset
        return WrittenDataset(dataset.dtype, dataset.shape, self._digests.get(name) or bytes_digest(np.empty(0)))

    def discard(self) -> None:
        """Remove the temporary file and let go of the memory."""
        self._buffers = {}
        with contextlib.suppress(OSError, RuntimeError):
            aside(self._stack.discard)


def _start(part: SteadyFile, structure: FileStructure) -> Any:
    """Make `part` an empty HDF5 file."""
    return import_h5py("writing HDF5 checkpoints").File(
        part, "w", track_order=structure.ordered, alignment_threshold=_ALIGNED_FROM, alignment_interval=_ALIGNMENT
    )


def _write(stored: Stored, words: Words) -> bytes:
    """Write a tensor; give the digest of its bytes as the file has them."""
    every = import_h5py().h5s.ALL
    raw = words.byteswap() if stored.swapped else words
    stored.dataset.id.write(every, every, raw, mtype=stored.dataset.id.get_type())
    return bytes_digest(raw)


def _check_names(path: Path, names: Mapping[str, TensorInfo]) -> None:
    for name in names:
        if any(part in {"", ".", ".."} or "\0" in part for part in name.split("/")) or not _is_utf8(name):
            raise CheckpointError(f"{path}: the tensor name {name!r} cannot be an HDF5 path")
        for group in _groups(name):
            if group in names:
                raise CheckpointError(f"{path}: {group!r} cannot be a tensor and the group of {name!r}")


def _groups(name: str) -> list[str]:
    """The paths of the groups around a name, outermost first."""
    parts = name.split("/")
    return ["/".join(parts[:end]) for end in range(1, len(parts))]


def _is_utf8(name: str) -> bool:
    try:
        return bool(name.encode())
    except UnicodeEncodeError:
        return False
