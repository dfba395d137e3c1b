"""HDF5 checkpoints, to write: in plain groups or over a copy of another file.

h5py is imported when the first writer is made, not before.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from diffpack.checkpoints.base import CheckpointWriter
from diffpack.checkpoints.hdf5_contents import (
    DTYPE_MARK,
    LIBRARY,
    SHAPE_MARK,
    Contents,
    Stored,
    explained,
    import_h5py,
)
from diffpack.errors import CheckpointError
from diffpack.support.atomic import AtomicStack, atomic_file
from diffpack.tensors.dtypes import Words, numpy_dtype
from diffpack.tensors.info import TensorInfo

_ALIGNMENT = 64  # bytes; data that stands aligned in the file can be used without a copy
_NOT_WRITTEN = "cannot be written as HDF5"
_COPIED = 1 << 20  # bytes a step when the template is copied
_ALIGNED_FROM = 4096  # smaller datasets are cheap to copy and would waste the file's space

_REGISTERED = 2  # numpy's mark of a dtype that another package (ml_dtypes) brought and HDF5 does not know


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
        self._stack = AtomicStack()
        try:
            with LIBRARY:
                with explained(self._source, _NOT_WRITTEN):
                    part = self._stack.enter_context(atomic_file(path))
                with explained(str(template or path)):
                    self._file = _start(part, template)
                    self._stack.callback(self._file.close)
                    old = Contents(self._file, str(template))
                with explained(self._source, _NOT_WRITTEN):
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
            with LIBRARY, explained(f"{self._source}: {name!r}", _NOT_WRITTEN):
                _write(self._slots[name], words)
            del self._missing[name]

    def publish(self) -> None:
        """Close the file and rename it to its name."""
        try:
            if self._missing:
                raise CheckpointError(f"{self._source}: {next(iter(self._missing))!r} was never written whole")
            with LIBRARY, explained(self._source, _NOT_WRITTEN):
                self._stack.close()
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Remove the temporary file and let go of the memory."""
        self._buffers = {}
        with LIBRARY, contextlib.suppress(OSError, RuntimeError):
            self._stack.discard()


def _start(part: BinaryIO, template: Path | None) -> Any:
    """Open `part` for writing, new or as a copy of `template`."""
    options: dict[str, Any] = {"alignment_threshold": _ALIGNED_FROM, "alignment_interval": _ALIGNMENT}
    if template is None:
        options |= {"mode": "w", "track_order": True}
    else:
        options["mode"] = "r+"
        with template.open("rb") as file:
            shutil.copyfileobj(file, part, _COPIED)
    return import_h5py("writing HDF5 checkpoints").File(part, **options)


def _write(stored: Stored, words: Words) -> None:
    every = import_h5py().h5s.ALL
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
    """The paths of the groups around a name, outermost first."""
    parts = name.split("/")
    return ["/".join(parts[:end]) for end in range(1, len(parts))]


def _is_utf8(name: str) -> bool:
    try:
        return bool(name.encode())
    except UnicodeEncodeError:
        return False


def _lay_out(file: Any, tensors: Mapping[str, TensorInfo], old: Contents) -> dict[str, Stored]:
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
        slots[name] = Stored(info, dataset)
    for alias, first in old.aliases.items():  # those of replaced datasets, unless a tensor took their place
        if first in attributes.keys() & slots.keys() and tensors.keys().isdisjoint({alias, *_groups(alias)}):
            file[alias] = slots[first].dataset
    return slots


def _attributes(dataset: Any) -> list[tuple[str, Any, Any]]:
    attributes = dataset.attrs
    return [
        (key, attributes[key], attributes.get_id(key).dtype)
        for key in attributes
        if key not in {DTYPE_MARK, SHAPE_MARK}
    ]


def _room(file: Any, name: str, aliases: dict[str, str | None]) -> tuple[Any, str]:
    """The group a tensor goes into, and its name there.

    The tensors are what the file must hold, so whatever stands in the way goes: an object that is no tensor,
    or a second name of a group.
    """
    h5py = import_h5py()
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
    h5py = import_h5py()
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
        dataset.attrs[DTYPE_MARK] = np.bytes_(info.dtype.name.encode())
    if info.dtype.bits < 8:
        dataset.attrs[SHAPE_MARK] = np.array(info.shape, np.int64)
    return dataset
