"""HDF5 checkpoints, to read. h5py is imported when the first one is opened, not before."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from diffpack.checkpoints.base import Checkpoint
from diffpack.checkpoints.hdf5_contents import LIBRARY, Contents, Stored, explained, import_h5py
from diffpack.tensors.dtypes import Words
from diffpack.tensors.info import TensorInfo


class Hdf5Checkpoint(Checkpoint):
    """One HDF5 file: Keras weights, or any groups of numeric datasets.

    Datasets that lie in one piece and aligned are memory-mapped, others read when asked for. `notes` lists
    what was skipped: text, objects, compound and empty datasets, and second names. Raises `CheckpointError` for
    a damaged file, `UnsupportedCheckpointError` for numbers that are not of our dtypes or in other files.
    """

    layout = "hdf5"

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), path)
        h5py = import_h5py("reading HDF5 checkpoints")
        with LIBRARY, explained(self.source):
            self._file = h5py.File(path, "r")
            try:
                self._contents = Contents(self._file, self.source)
                self._map = np.asarray(np.memmap(path, np.uint8, mode="r"))
            except BaseException:
                self._file.close()
                raise
        self._tensors = {name: stored.info for name, stored in self._contents.tensors.items()}
        self.notes += self._contents.notes

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors by name, group by group, in the order of creation if the file tracks it, else sorted."""
        return self._tensors

    def words(self, name: str) -> Words:
        """A tensor's words, little-endian, as a view of the memory map or read into new memory.

        Raises `MissingTensorError`; `CheckpointError` for damaged data or after `close`.
        """
        self.info(name)
        with LIBRARY, explained(f"{self.source}: {name!r}"):
            stored = self._contents.tensors[name]
            start = stored.dataset.id.get_offset()  # None unless contiguous and written
            stop = -1 if start is None else start + stored.info.nbytes
            whole = start is not None and stored.dataset.id.get_storage_size() == stored.info.nbytes
            if whole and not stored.swapped and stop <= len(self._map):
                words = self._map[start:stop].view(stored.info.dtype.word)
                if words.flags.aligned:
                    return words
            words = _read(stored)
        words.flags.writeable = False
        return words

    def close(self) -> None:
        """Close the file; views handed out before stay valid."""
        with LIBRARY:
            self._file.close()
            self._map = self._map[:0]


def _read(stored: Stored) -> Words:
    """Read the words by their bits: the file's own type on both sides, so HDF5 converts nothing."""
    words = np.empty(stored.info.words, stored.info.dtype.word)
    if words.size:
        every = import_h5py().h5s.ALL
        stored.dataset.id.read(every, every, words, mtype=stored.dataset.id.get_type())
    return words.byteswap() if stored.swapped else words
