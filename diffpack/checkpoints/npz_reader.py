"""NumPy archives (`.npz`), to read: a zip archive with an array a member. No pickle in them is ever run."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from diffpack.checkpoints.base import Checkpoint
from diffpack.checkpoints.claims import refuse_claims
from diffpack.checkpoints.hdf5_contents import explained
from diffpack.checkpoints.weights_file import FileStream, FileWords, WeightsFile
from diffpack.checkpoints.zip_members import ZipMembers
from diffpack.errors import CheckpointError, UnsupportedCheckpointError
from diffpack.support.names import printable
from diffpack.tensors.dtypes import Words, array_words, from_numpy
from diffpack.tensors.info import TensorInfo
from diffpack.tensors.word_source import WordSource

NPY = ".npy"
_HEADERS = {(1, 0): (npy.read_array_header_1_0, 2), (2, 0): (npy.read_array_header_2_0, 4)}
"""What reads the header of each version, and the bytes that say how long it is."""
_MOST_HEADER = 10_000  # NumPy's own limit
_TEXT = "SU"  # kinds of dtypes: bytes and text, which no diff holds
_MOST_RATIO = 1040  # deflate packs at most 1032 to one; a member that claims more is a bomb
_SLACK = 1 << 16  # bytes; what a small member may claim over that


@dataclass(frozen=True, slots=True)
class _Array:
    """An array of the archive: its member, dtype and shape as the file has them, and where in it its entries begin."""

    member: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    header: int
    info: TensorInfo


class NpzCheckpoint(Checkpoint):
    """One `.npz` file, packed (`numpy.savez_compressed`) or not; with `mmap` false it is never mapped.

    Arrays of text are left out. Raises `CheckpointError` for a damaged archive, `UnsupportedCheckpointError` for arrays
    of objects, which only running a pickle would read, and of dtypes that are not ours.
    """

    layout = "npz"

    def __init__(self, path: Path, *, mmap: bool = True) -> None:
        super().__init__(str(path), path)
        self._file = WeightsFile(path, self.notes, mmap=mmap)
        with explained(self.source, "damaged, or no NumPy archive"):
            self._members = ZipMembers(self._file)
            found = {name.removesuffix(NPY): self._look(name) for name in self._members.infos}
        self._arrays = {name: array for name, array in found.items() if array is not None}
        self.left_out += sorted(printable(name) for name, array in found.items() if array is None)
        self._tensors = {name: array.info for name, array in self._arrays.items()}
        refuse_claims(self._tensors, self._file.size, self.source)

    def _look(self, member: str) -> _Array | None:
        """Read the header of an array; None for one that is text."""
        where, item = f"{self.source}: {printable(member.removesuffix(NPY))!r}", self._members.infos[member]
        if not member.endswith(NPY) or item.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise UnsupportedCheckpointError(f"{where}: no array as NumPy saves one")
        if item.file_size > _MOST_RATIO * item.compress_size + _SLACK:
            raise CheckpointError(
                f"{where}: claims {item.file_size} bytes of {item.compress_size} packed ones: damaged"
            )
        with self._stream(member) as stream:
            version = npy.read_magic(stream)
            if version not in _HEADERS:
                raise UnsupportedCheckpointError(f"{where}: an array with named fields, which is no tensor")
            read, width = _HEADERS[version]
            head = stream.read(width)
            length = int.from_bytes(head, "little")
            if length > _MOST_HEADER:  # NumPy reads it whole before it looks
                raise CheckpointError(f"{where}: damaged: a header of {length:,} bytes")
            shape, fortran, dtype = read(io.BytesIO(head + stream.read(length)))
            header = stream.tell()
        if dtype.kind in _TEXT:
            return None
        ours = from_numpy(dtype.newbyteorder("<"))
        if dtype.hasobject or ours is None:
            what = "Python objects, which only running a pickle would read" if dtype.hasobject else f"dtype {dtype}"
            raise UnsupportedCheckpointError(f"{where}: an array of {what}: save arrays of numbers that NumPy has")
        info = TensorInfo(ours, tuple(shape))
        if header + info.nbytes != item.file_size:
            raise CheckpointError(f"{where}: damaged: {item.file_size - header} bytes, where {info} has {info.nbytes}")
        return _Array(member, dtype, tuple(shape), fortran and len(shape) > 1, header, info)

    def _stream(self, member: str) -> IO[bytes]:
        if self._members.is_stored(member):
            return FileStream(self._file, *self._members.place(member))  # type: ignore[return-value] # raw, as IO is
        return self._members.unpacked(member)

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors by name, in the file's order."""
        return self._tensors

    def words(self, name: str) -> Words:
        """A tensor's words, mapped where they stand in the file as they are, else in new memory."""
        info, array = self.info(name), self._arrays[name]
        start = self._offset(array)
        return self._unpack(name) if start is None else self._file.words(start, info.words, info.dtype.word)

    def word_source(self, name: str) -> WordSource:
        """A tensor's words, read from the file part by part where they stand there as they are."""
        info, array = self.info(name), self._arrays[name]
        start = self._offset(array)
        return self._unpack(name) if start is None else FileWords(self._file, start, info.words, info.dtype.word)

    def _offset(self, array: _Array) -> int | None:
        swapped = array.dtype.newbyteorder("<") != array.dtype
        if array.fortran or swapped or not self._members.is_stored(array.member):
            return None
        return self._members.place(array.member)[0] + array.header

    def _unpack(self, name: str) -> Words:
        """Read an array that is packed, big-endian, or in another order."""
        array = self._arrays[name]
        with explained(f"{self.source}: {name!r}", "damaged"), self._stream(array.member) as stream:
            stream.seek(array.header)
            raw = bytearray(array.info.nbytes)
            filled = 0
            while filled < len(raw) and (part := stream.read(len(raw) - filled)):
                raw[filled : filled + len(part)] = part
                filled += len(part)
            if filled < len(raw) or stream.read(1):
                raise CheckpointError(f"{self.source}: {name!r}: damaged: it does not have the bytes it should")
        shape = tuple(reversed(array.shape)) if array.fortran else array.shape
        entries = np.frombuffer(raw, array.dtype).reshape(shape)
        words = array_words(entries.T if array.fortran else entries, array.info.dtype)
        words.flags.writeable = False
        return words

    def close(self) -> None:
        """Close the file; arrays handed out before stay valid."""
        self._file.close()
