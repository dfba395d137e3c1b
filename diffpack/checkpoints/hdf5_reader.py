"""HDF5 checkpoints, to read. h5py is imported when the first one is opened, not before."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from diffpack.checkpoints.base import Checkpoint
from diffpack.checkpoints.claims import refuse_claims
from diffpack.checkpoints.file_kinds import named_by_content
from diffpack.checkpoints.hdf5_contents import LIBRARY, Contents, Stored, explained, import_h5py
from diffpack.checkpoints.hdf5_structure_reader import read_structure
from diffpack.checkpoints.weights_file import FileStream, FileWords, WeightsFile
from diffpack.errors import CheckpointError
from diffpack.format.hdf5_structure import FileStructure
from diffpack.tensors.dtypes import Words
from diffpack.tensors.info import TensorInfo
from diffpack.tensors.word_source import WordSource

_MOST_EXPANSION = 1100
"""Times a file's bytes that its datasets may have: deflate packs 1032 to one. HDF5 makes up what a file leaves out."""
_ALWAYS_HELD = 1 << 20  # bytes of datasets that a file of any size may have


class Hdf5Checkpoint(Checkpoint):
    """One HDF5 file: Keras weights, or any groups of numeric datasets.

    Datasets that lie in one piece and aligned are read past the library, memory-mapped unless `mmap` is false, others
    by it when asked for. `notes` lists what was skipped: text, objects, compound and empty datasets, and second names.
    Raises `CheckpointError` for a damaged file, `UnsupportedCheckpointError` for numbers that are not of our dtypes or
    in other files. `part` is where the HDF5 file begins in the file at `path`, and its bytes: None for all of it.
    """

    layout = "hdf5"

    def __init__(self, path: Path, *, mmap: bool = True, part: tuple[int, int] | None = None) -> None:
        super().__init__(str(path), path)
        h5py = import_h5py("reading HDF5 checkpoints")
        with LIBRARY, named_by_content(path, "hdf5" if part is None else "keras"), explained(self.source):
            self._bytes = WeightsFile(path, self.notes, mmap=mmap)
            self._begin, self._size = part or (0, self._bytes.size)
            self._file = h5py.File(path if part is None else FileStream(self._bytes, *part), "r")
            try:
                self._contents = Contents(self._file, self.source)
                self._refuse_made_up()
            except BaseException:
                self._file.close()
                raise
        self._tensors = {name: stored.info for name, stored in self._contents.tensors.items()}
        self.notes += self._contents.notes

    def _refuse_made_up(self) -> None:
        """Raise `CheckpointError` if datasets claim more than the file can hold: its shapes are only numbers in it."""
        infos = {name: stored.info for name, stored in self._contents.tensors.items()}
        if sum(info.nbytes for info in infos.values()) > _MOST_EXPANSION * self._size + _ALWAYS_HELD:
            name = max(infos, key=lambda name: infos[name].nbytes)
            what = f"{infos[name]} in a file of {self._size} bytes"
            raise CheckpointError(f"{self.source}: {name!r}: {what}: most of it was never written, or it is damaged")
        refuse_claims(infos, self._size, self.source)

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors by name, group by group, in the order of creation if the file tracks it, else sorted."""
        return self._tensors

    def words(self, name: str) -> Words:
        """A tensor's words, little-endian, as a view of the memory map or read into new memory.

        Raises `MissingTensorError`; `CheckpointError` for damaged data or after `close`.
        """
        info = self.info(name)
        start = self._offset(name)
        return self._read(name) if start is None else self._bytes.words(start, info.words, info.dtype.word)

    def word_source(self, name: str) -> WordSource:
        """A tensor's words, read from the file part by part if they lie in one piece; raises as `words` does."""
        info = self.info(name)
        start = self._offset(name)
        return self._read(name) if start is None else FileWords(self._bytes, start, info.words, info.dtype.word)

    def _offset(self, name: str) -> int | None:
        """Where a tensor's bytes lie in the file, aligned and in one piece; None if they do not."""
        with LIBRARY, explained(f"{self.source}: {name!r}"):
            self._refuse_closed(name)
            stored = self._contents.tensors[name]
            start: int | None = stored.dataset.id.get_offset()  # None unless contiguous and written
            whole = start is not None and stored.dataset.id.get_storage_size() == stored.info.nbytes
            if start is None or not whole or stored.swapped or start + stored.info.nbytes > self._size:
                return None
            start += self._begin
            return None if start % stored.info.dtype.word.itemsize else start

    def _read(self, name: str) -> Words:
        with LIBRARY, explained(f"{self.source}: {name!r}"):
            self._refuse_closed(name)
            words = _read(self._contents.tensors[name])
        words.flags.writeable = False
        return words

    def structure(self) -> tuple[FileStructure, list[str]]:
        """Attributes, groups, links and other data; see `Checkpoint.structure`. Raises `CheckpointError`."""
        with LIBRARY, explained(self.source):
            self._refuse_closed("its structure")
            return read_structure(self._file, self._contents)

    def _refuse_closed(self, what: str) -> None:
        if not self._file:  # as h5py tells
            raise CheckpointError(f"{self.source}: {what!r}: asked for after close")

    def close(self) -> None:
        """Close the file; views handed out before stay valid."""
        with LIBRARY:
            self._file.close()
        self._bytes.close()


def _read(stored: Stored) -> Words:
    """Read the words by their bits: the file's own type on both sides, so HDF5 converts nothing."""
    words = np.empty(stored.info.words, stored.info.dtype.word)
    if words.size:
        every = import_h5py().h5s.ALL
        stored.dataset.id.read(every, every, words, mtype=stored.dataset.id.get_type())
    return words.byteswap() if stored.swapped else words
