"""An HDF5 file that was just written, read back: HDF5 has no checksums, and not every library's error arrives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from diffpack.checkpoints.hdf5_contents import LIBRARY, explained, import_h5py
from diffpack.errors import CheckpointError
from diffpack.support.names import printable

_BLOCK_BYTES = 32 << 20  # read at once; larger than the chunks of other tools, which are decompressed for every block


@dataclass(frozen=True)
class WrittenDataset:
    """What was written: the type and the shape as the file has them, and the digest of the bytes (C order)."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    digest: bytes

    @classmethod
    def of(cls, array: npt.NDArray[Any]) -> WrittenDataset:
        """What an array becomes that is written as it is."""
        return cls(array.dtype, array.shape, bytes_digest(array))


def bytes_digest(array: npt.NDArray[Any]) -> bytes:
    """The digest of an array's bytes, in C order."""
    return blake3(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data).digest()


def check_written(path: Path, where: str, written: Mapping[str, WrittenDataset]) -> None:
    """Read datasets back in bounded memory. Raises `CheckpointError`, which calls the file `where`."""
    h5py = import_h5py()
    with LIBRARY, explained(where, "was not written as it should be"), h5py.File(path, "r", locking=False) as file:
        for name, expected in written.items():
            dataset = file[name]
            same = dataset.dtype == expected.dtype and dataset.shape == expected.shape
            if not same or _digest(dataset, expected.dtype) != expected.digest:
                raise CheckpointError(
                    f"{where}: {printable(name)} does not read back as it was written; nothing was kept"
                )


def _digest(dataset: Any, dtype: np.dtype[Any]) -> bytes:
    h5s = import_h5py().h5s
    hasher = blake3()
    place, kind = dataset.id.get_space(), dataset.id.get_type()  # its own type: nothing is converted
    for start, count in _blocks(dataset.shape, _BLOCK_BYTES // dtype.itemsize) if dataset.size else ():
        block = np.empty(count, dtype)
        if count:
            place.select_hyperslab(start, count)
            dataset.id.read(h5s.create_simple(count), place, block, mtype=kind)
        else:
            dataset.id.read(h5s.ALL, h5s.ALL, block, mtype=kind)
        hasher.update(block.reshape(-1).view(np.uint8).data)
    return hasher.digest()


def _blocks(shape: tuple[int, ...], most: int) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Cut an array that is not empty into blocks of at most `most` entries, in C order: (start, shape) of each."""
    row = prod(shape[1:])
    if not shape or shape[0] * row <= most:
        yield (0,) * len(shape), shape
    elif row <= most:
        step = most // row
        for first in range(0, shape[0], step):
            yield (first, *(0,) * (len(shape) - 1)), (min(step, shape[0] - first), *shape[1:])
    else:
        for first in range(shape[0]):
            for start, count in _blocks(shape[1:], most):
                yield (first, *start), (1, *count)
