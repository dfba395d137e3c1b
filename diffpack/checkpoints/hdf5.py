"""HDF5 checkpoints: every numeric dataset is a tensor, and its path is the tensor's name.

NumPy has no bfloat16 and nothing smaller than a byte, so such tensors are datasets of unsigned integers whose
attribute `diffpack_dtype` names the dtype, and `diffpack_shape` the shape of those packed below a byte.
A dataset counts once, under the first name it is met by; other links to it are part of the file's structure.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from diffpack.atomic import atomic_file
from diffpack.checkpoints.base import Checkpoint, TensorInfo
from diffpack.checkpoints.writer import CheckpointWriter
from diffpack.dtypes import DTYPES, Words, from_numpy, numpy_dtype
from diffpack.errors import CheckpointError, DiffpackError, MissingDependencyError, UnsupportedCheckpointError
from diffpack.names import printable

_DTYPE = "diffpack_dtype"
_SHAPE = "diffpack_shape"
_ALIGNMENT = 64  # bytes; data that stands aligned in the file can be used without a copy
_NOT_WRITTEN = "cannot be written as HDF5"
_COPIED = 1 << 20  # bytes a step when the template is copied
_ALIGNED_FROM = 4096  # smaller datasets are cheap to copy and would waste the file's space

_REGISTERED = 2  # numpy's mark of a dtype that another package (ml_dtypes) brought and HDF5 does not know

_library = threading.RLock()  # the HDF5 library has global state, so one lock serves all files


class Hdf5Checkpoint(Checkpoint):
    """One HDF5 file: Keras weights, or any groups of numeric datasets.

    Datasets that lie in one piece and aligned are memory-mapped, others read when asked for. `notes` lists
    what was skipped: text, objects, compound and empty datasets, and second names. Raises `CheckpointError` for
    a damaged file, `UnsupportedCheckpointError` for numbers that are not of our dtypes or in other files.
    """

    layout = "hdf5"

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), path)
        h5py = _h5py("reading HDF5 checkpoints")
        with _library, _explained(self.source):
            self._file = h5py.File(path, "r")
            try:
                self._contents = _Contents(self._file, self.source)
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
        """Give a tensor's words, little-endian, as a view of the memory map or read into new memory.

        Raises `MissingTensorError`; `CheckpointError` for damaged data or after `close`.
        """
        self.info(name)
        with _library, _explained(f"{self.source}: {name!r}"):
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
        with _library:
            self._file.close()
            self._map = self._map[:0]


class Hdf5Writer(CheckpointWriter):
    """Write an HDF5 file, in plain groups or over a copy of `template`.

    Of a template everything stays but its tensors: those of the same dtype and shape are overwritten in place
    (with their compression and byte order), those of another are replaced and keep their attributes, those
    not in `tensors` are deleted. Raises `CheckpointError` for names HDF5 cannot hold, a damaged template, and,
    on publishing, for tensors not filled or a file that cannot be written.
    """

    def __init__(self, path: Path, tensors: Mapping[str, TensorInfo], template: Path | None = None) -> None:
        _check_names(path, tensors)
        self._source = str(path)
        self._tensors = tensors
        self._buffers: dict[str, npt.NDArray[np.uint8]] = {}
        self._missing = {name: info.nbytes for name, info in tensors.items() if info.nbytes}
        self._stack = contextlib.ExitStack()
        try:
            with _library:
                with _explained(self._source, _NOT_WRITTEN):
                    part = self._stack.enter_context(atomic_file(path))
                with _explained(str(template or path)):
                    self._file = _start(part, template)
                    self._stack.callback(self._file.close)
                    old = _Contents(self._file, str(template))
                with _explained(self._source, _NOT_WRITTEN):
                    self._slots = _lay_out(self._file, tensors, old)
        except BaseException:
            self.discard()
            raise

    def write(self, name: str, offset: int, data: npt.NDArray[Any]) -> None:
        """Keep a piece of a tensor, and write the dataset once it is whole; see `CheckpointWriter.write`."""
        info = self._tensors[name]
        if name not in self._buffers:
            self._buffers[name] = np.empty(info.nbytes, np.uint8)
        self._buffers[name][offset : offset + data.nbytes] = np.ascontiguousarray(data).view(np.uint8)
        self._missing[name] -= data.nbytes
        if self._missing[name] == 0:
            words = self._buffers.pop(name).view(info.dtype.word)
            with _library, _explained(f"{self._source}: {name!r}", _NOT_WRITTEN):
                _write(self._slots[name], words)
            del self._missing[name]

    def publish(self) -> None:
        """Close the file and rename it to its name."""
        try:
            if self._missing:
                raise CheckpointError(f"{self._source}: {next(iter(self._missing))!r} was never written whole")
            with _library, _explained(self._source, _NOT_WRITTEN):
                self._stack.close()
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Remove the temporary file and let go of the memory."""
        self._buffers = {}
        with _library, contextlib.suppress(_Discarded, OSError, RuntimeError), self._stack:
            raise _Discarded


class _Discarded(Exception):  # noqa: N818 - not an error: it tells atomic_file to clean up
    pass


@dataclass(frozen=True)
class _Stored:
    """A tensor and the dataset it lies in; `swapped` if its bytes are big-endian."""

    info: TensorInfo
    dataset: Any
    swapped: bool = False


class _Contents:
    """What a file holds: its tensors, and the second names of its groups and datasets with their first."""

    def __init__(self, file: Any, source: str) -> None:
        self.tensors: dict[str, _Stored] = {}
        self.aliases: dict[str, str | None] = {}  # None: a soft or external link, which is not followed
        self.notes: list[str] = []
        self._source = source
        self._first = {_address(file): ""}
        self._walk(file, "")

    def _walk(self, group: Any, prefix: str) -> None:
        h5py = _h5py()
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
        self.tensors[path] = _Stored(_info(dataset, where), dataset, swapped)
        return None

    def _note(self, path: str, what: str) -> None:
        self.notes.append(f"skipped, {what}: {printable(path)}")


def _h5py(what: str = "reading HDF5 checkpoints") -> Any:
    try:
        import h5py
    except ImportError as error:
        raise MissingDependencyError("h5py", "hdf5", what) from error
    return h5py


@contextlib.contextmanager
def _explained(where: str, what: str = "damaged, or no HDF5 file") -> Iterator[None]:
    """Turn what h5py raises (for a damaged file that may be anything) into a CheckpointError."""
    try:
        yield
    except DiffpackError:
        raise
    except Exception as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"{where}: {what}: {cause}") from error


def _address(item: Any) -> int:
    address: int = _h5py().h5o.get_info(item.id).addr
    return address


def _is_exact(dataset: Any) -> bool:
    """Tell whether the file's type is, but for the byte order, NumPy's (HDF5 has others, of any width)."""
    h5t = _h5py().h5t
    kind = dataset.id.get_type()
    same = kind.equal(h5t.py_create(dataset.dtype, logical=True))
    native = kind.get_class() in {h5t.BITFIELD, getattr(h5t, "COMPLEX", h5t.BITFIELD)}
    return kind.get_size() == dataset.dtype.itemsize and (same or native)


def _info(dataset: Any, where: str) -> TensorInfo:
    mark = dataset.attrs.get(_DTYPE)
    if mark is None:
        dtype = from_numpy(dataset.dtype)
        if dtype is None:
            raise UnsupportedCheckpointError(f"{where}: the dtype {dataset.dtype} is not supported")
        return TensorInfo(dtype, dataset.shape)
    name = mark.decode() if isinstance(mark, bytes) else str(mark)
    if name not in DTYPES:
        raise UnsupportedCheckpointError(f"{where}: the dtype {name!r} is not supported")
    packed = DTYPES[name].bits < 8
    shape = tuple(int(size) for size in dataset.attrs[_SHAPE]) if packed else dataset.shape
    info = TensorInfo(DTYPES[name], shape)
    right = dataset.dtype.kind == "u" and dataset.dtype.itemsize == info.dtype.word.itemsize
    if not right or min(shape, default=0) < 0 or info.words != dataset.size:
        raise CheckpointError(f"{where}: its attribute {_DTYPE} {name!r} does not fit {dataset.dtype}{shape}")
    return info


def _start(part: BinaryIO, template: Path | None) -> Any:
    """Open `part` for writing, new or as a copy of `template`."""
    options: dict[str, Any] = {"alignment_threshold": _ALIGNED_FROM, "alignment_interval": _ALIGNMENT}
    if template is None:
        options |= {"mode": "w", "track_order": True}
    else:
        options["mode"] = "r+"
        with template.open("rb") as file:
            shutil.copyfileobj(file, part, _COPIED)
    return _h5py("writing HDF5 checkpoints").File(part, **options)


def _read(stored: _Stored) -> Words:
    """Read the words by their bits: the file's own type on both sides, so HDF5 converts nothing."""
    words = np.empty(stored.info.words, stored.info.dtype.word)
    if words.size:
        every = _h5py().h5s.ALL
        stored.dataset.id.read(every, every, words, mtype=stored.dataset.id.get_type())
    return words.byteswap() if stored.swapped else words


def _write(stored: _Stored, words: Words) -> None:
    every = _h5py().h5s.ALL
    raw = words.byteswap() if stored.swapped else words
    stored.dataset.id.write(every, every, raw, mtype=stored.dataset.id.get_type())


def _check_names(path: Path, names: Mapping[str, TensorInfo]) -> None:
    for name in names:
        if any(part in {"", ".", ".."} or "\0" in part for part in name.split("/")) or not _is_utf8(name):
            raise CheckpointError(f"{path}: the tensor name {name!r} cannot be an HDF5 path")
        for group in _groups(name):
            if group in names:
                raise CheckpointError(f"{path}: {group!r} cannot be a tensor and the group of {name!r}")


def _groups(name: str) -> list[str]:
    """Give the paths of the groups around a name, outermost first."""
    parts = name.split("/")
    return ["/".join(parts[:end]) for end in range(1, len(parts))]


def _is_utf8(name: str) -> bool:
    try:
        return bool(name.encode())
    except UnicodeEncodeError:
        return False


def _lay_out(file: Any, tensors: Mapping[str, TensorInfo], old: _Contents) -> dict[str, _Stored]:
    """Make a dataset for every tensor in a file that holds `old`.

    All are made beforehand, so that the file does not depend on the order in which threads finish them.
    """
    slots, attributes = {}, {}
    for name, stored in old.tensors.items():
        if tensors.get(name) == stored.info:
            slots[name] = stored
            continue
        attributes[name] = _attributes(stored.dataset)
        for path in [name, *(alias for alias, first in old.aliases.items() if first == name)]:
            del file[path]
    for name, info in tensors.items():
        if name in slots:
            continue
        group, last = _room(file, name, old.aliases)
        dataset = _create(group, last, info)
        for key, value, dtype in attributes.get(name, ()):
            dataset.attrs.create(key, value, dtype=dtype)
        slots[name] = _Stored(info, dataset)
    for alias, first in old.aliases.items():  # those of replaced datasets, unless a tensor took their place
        if first in attributes.keys() & slots.keys() and tensors.keys().isdisjoint({alias, *_groups(alias)}):
            file[alias] = slots[first].dataset
    return slots


def _attributes(dataset: Any) -> list[tuple[str, Any, Any]]:
    attributes = dataset.attrs
    return [(key, attributes[key], attributes.get_id(key).dtype) for key in attributes if key not in {_DTYPE, _SHAPE}]


def _room(file: Any, name: str, aliases: dict[str, str | None]) -> tuple[Any, str]:
    """Give the group a tensor goes into, and its name there.

    The tensors are what the file must hold, so whatever stands in the way goes: an object that is no tensor,
    or a second name of a group.
    """
    h5py = _h5py()
    group = file
    for path in _groups(name):
        part = path.rpartition("/")[2]
        exists = group.id.links.exists(part.encode())
        if exists and (path in aliases or not isinstance(group[part], h5py.Group)):
            del group[part]
            exists = False
            aliases.pop(path, None)
        group = group[part] if exists else group.create_group(part, track_order=True)
    last = name.rpartition("/")[2]
    if group.id.links.exists(last.encode()):
        del group[last]
    return group, last


def _create(group: Any, last: str, info: TensorInfo) -> Any:
    h5py = _h5py()
    kind = numpy_dtype(info.dtype)
    native = kind is not None and kind.isbuiltin != _REGISTERED
    shape = info.shape if info.dtype.bits >= 8 else (info.words,)
    space = h5py.h5s.create_simple(shape) if shape else h5py.h5s.create(h5py.h5s.SCALAR)
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    settings.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    settings.set_obj_track_times(False)
    type_ = h5py.h5t.py_create(kind if native else info.dtype.word, logical=True)
    dataset = h5py.Dataset(h5py.h5d.create(group.id, None, type_, space, settings))
    group[last] = dataset
    if not native:
        # Of fixed length: HDF5 puts other strings into a heap, which it may search for ever once damaged.
        dataset.attrs[_DTYPE] = np.bytes_(info.dtype.name.encode())
    if info.dtype.bits < 8:
        dataset.attrs[_SHAPE] = np.array(info.shape, np.int64)
    return dataset
