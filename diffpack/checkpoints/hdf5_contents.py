"""What an HDF5 checkpoint holds: every numeric dataset is a tensor, and its path is the tensor's name.

NumPy has no bfloat16 and nothing smaller than a byte, so such tensors are datasets of unsigned integers whose
attribute `diffpack_dtype` names the dtype, and `diffpack_shape` the shape of those packed below a byte.
A dataset counts once, under the first name it is met by; other links to it are part of the file's structure.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from diffpack.errors import CheckpointError, DiffpackError, MissingDependencyError, UnsupportedCheckpointError
from diffpack.support.names import printable
from diffpack.tensors.dtypes import DTYPES, from_numpy
from diffpack.tensors.info import TensorInfo

DTYPE_MARK = "diffpack_dtype"
SHAPE_MARK = "diffpack_shape"

LIBRARY = threading.RLock()  # the HDF5 library has global state, so one lock serves all files


@dataclass(frozen=True)
class Stored:
    """A tensor and the dataset it lies in; `swapped` if its bytes are big-endian."""

    info: TensorInfo
    dataset: Any
    swapped: bool = False


class Contents:
    """What a file holds: its tensors, and the second names of its groups and datasets with their first."""

    def __init__(self, file: Any, source: str) -> None:
        self.tensors: dict[str, Stored] = {}
        self.aliases: dict[str, str | None] = {}  # None: a soft or external link, which is not followed
        self.notes: list[str] = []
        self._source = source
        self._first = {_address(file): ""}
        self._walk(file, "")

    def _walk(self, group: Any, prefix: str) -> None:
        h5py = import_h5py()
        for key in group:
            if not isinstance(key, str):
                raise UnsupportedCheckpointError(f"{self._source}: the name {key!r} in {prefix!r} is not UTF-8")
            path = prefix + key
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                self.aliases[path] = None
                self._note(path, "a link")
                continue
            item = group[key]
            first = self._first.setdefault(_address(item), path)
            if first != path:
                self.aliases[path] = first
                self._note(path, f"another name of {first!r}")
            elif isinstance(item, h5py.Group):
                self._walk(item, path + "/")
            elif isinstance(item, h5py.Dataset):
                self._add(path, item)

    def _add(self, path: str, dataset: Any) -> None:
        try:
            entry = dataset.dtype
        except TypeError:
            return self._note(path, "of a type NumPy lacks")
        if dataset.shape is None:
            return self._note(path, "without a shape")
        if entry.kind not in "biufc":
            return self._note(path, "not numbers")
        where = f"{self._source}: {path!r}"
        if dataset.is_virtual or dataset.external:
            raise UnsupportedCheckpointError(f"{where}: its data lies in other files")
        if not _is_exact(dataset):
            raise UnsupportedCheckpointError(f"{where}: its numbers cannot be held as {entry} bit by bit")
        swapped = entry.newbyteorder("<") != entry and entry.itemsize > 1
        self.tensors[path] = Stored(_info(dataset, where), dataset, swapped)
        return None

    def _note(self, path: str, what: str) -> None:
        self.notes.append(f"skipped, {what}: {printable(path)}")


def import_h5py(what: str = "reading HDF5 checkpoints") -> Any:
    """Import h5py; raises `MissingDependencyError`, which says `what` it is needed for."""
    try:
        import h5py
    except ImportError as error:
        raise MissingDependencyError("h5py", "hdf5", what) from error
    return h5py


@contextlib.contextmanager
def explained(where: str, what: str = "damaged, or no HDF5 file") -> Iterator[None]:
    """Turn what h5py raises (for a damaged file that may be anything) into a CheckpointError."""
    try:
        yield
    except DiffpackError:
        raise
    except Exception as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"{where}: {what}: {cause}") from error


def _address(item: Any) -> int:
    address: int = import_h5py().h5o.get_info(item.id).addr
    return address


def _is_exact(dataset: Any) -> bool:
    """Tell whether the file's type is, but for the byte order, NumPy's (HDF5 has others, of any width)."""
    h5t = import_h5py().h5t
    kind = dataset.id.get_type()
    same = kind.equal(h5t.py_create(dataset.dtype, logical=True))
    native = kind.get_class() in {h5t.BITFIELD, getattr(h5t, "COMPLEX", h5t.BITFIELD)}
    return kind.get_size() == dataset.dtype.itemsize and (same or native)


def _info(dataset: Any, where: str) -> TensorInfo:
    mark = dataset.attrs.get(DTYPE_MARK)
    if mark is None:
        dtype = from_numpy(dataset.dtype)
        if dtype is None:
            raise UnsupportedCheckpointError(f"{where}: the dtype {dataset.dtype} is not supported")
        return TensorInfo(dtype, dataset.shape)
    name = mark.decode() if isinstance(mark, bytes) else str(mark)
    if name not in DTYPES:
        raise UnsupportedCheckpointError(f"{where}: the dtype {name!r} is not supported")
    packed = DTYPES[name].bits < 8
    shape = tuple(int(size) for size in dataset.attrs[SHAPE_MARK]) if packed else dataset.shape
    info = TensorInfo(DTYPES[name], shape)
    right = dataset.dtype.kind == "u" and dataset.dtype.itemsize == info.dtype.word.itemsize
    if not right or min(shape, default=0) < 0 or info.words != dataset.size:
        raise CheckpointError(f"{where}: its attribute {DTYPE_MARK} {name!r} does not fit {dataset.dtype}{shape}")
    return info
