"""An HDF5 file made from its structure, with room for every tensor; and a base's structure fitted to other tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from msgspec.structs import replace

from diffpack.checkpoints.hdf5_contents import DTYPE_MARK, SHAPE_MARK, Stored, import_h5py
from diffpack.format.hdf5_structure import (
    VARIABLE,
    Attribute,
    DataItem,
    FileStructure,
    GroupItem,
    Item,
    LinkItem,
    TensorItem,
    Value,
    chunk_fits,
)
from diffpack.tensors.dtypes import numpy_dtype
from diffpack.tensors.info import TensorInfo

_REGISTERED = 2  # numpy's mark of a dtype that another package (ml_dtypes) brought and HDF5 does not know
PLAIN = FileStructure(ordered=True, attributes=(), items=())
"""The structure of a file of which only the tensors are known."""


def lay_out(file: Any, content: FileStructure, tensors: Mapping[str, TensorInfo]) -> dict[str, Stored]:
    """Make all that `content` says in an empty file, and a dataset for every tensor.

    `content` names no other tensors; those it lacks go into plain groups. All are made beforehand, so that the file
    does not depend on the order in which threads finish them.
    """
    slots = {}
    _describe(file, content.attributes)
    for item in content.items:
        group, last = _room(file, item.path)
        if isinstance(item, GroupItem):
            _describe(group.create_group(last, track_order=item.ordered), item.attributes)
        elif isinstance(item, TensorItem):
            slots[item.path] = _create(group, last, tensors[item.path], item)
        elif isinstance(item, DataItem):
            dataset = _create_data(group, last, item.value)
            _describe(dataset, item.attributes)
        else:
            group[last] = import_h5py().SoftLink(item.target) if item.soft else file[item.target]
    for name, info in tensors.items():
        if name not in slots:
            slots[name] = _create(*_room(file, name), info, None)
    return slots


def fitted(content: FileStructure, tensors: Mapping[str, TensorInfo], same: Callable[[str], bool]) -> FileStructure:
    """A base's structure for other tensors: without what is not there, and what is in the way.

    `same` tells whether a tensor has the base's dtype and shape: only then it is stored as the base's is.
    """
    around = {name[:at] for name in tensors for at, letter in enumerate(name) if letter == "/"}
    kept: list[Item] = []
    paths: set[str] = set()
    for item in content.items:
        group = item.path.rpartition("/")[0]
        if group and group not in paths:
            continue
        if isinstance(item, GroupItem):
            fits = item.path not in tensors
        elif isinstance(item, TensorItem):
            fits = item.path in tensors
        else:
            fits = item.path not in tensors and item.path not in around
            fits = fits and not (isinstance(item, LinkItem) and not item.soft and item.target not in paths)
        if fits:
            plain = isinstance(item, TensorItem) and not same(item.path)
            kept.append(replace(item, big_endian=False, chunks=None, largest=None, filters=()) if plain else item)
            paths.add(item.path)
    return replace(content, items=_without_emptied(content.items, kept, around))


def _without_emptied(before: Sequence[Item], kept: Sequence[Item], around: set[str]) -> tuple[Item, ...]:
    """Leave out groups of which nothing is left, though something was in them."""

    def groups(items: Sequence[Item]) -> set[str]:
        paths = [item.path for item in items if not isinstance(item, GroupItem)]
        return {path[:at] for path in paths for at, letter in enumerate(path) if letter == "/"}

    emptied = groups(before) - groups(kept) - around
    return tuple(item for item in kept if item.path not in emptied)


def _room(file: Any, name: str) -> tuple[Any, str]:
    """The group of an item, made where it is missing, and the item's name in it."""
    group, _, last = name.rpartition("/")
    place = file
    for part in group.split("/") if group else ():
        place = place[part] if part in place else place.create_group(part, track_order=True)
    return place, last


def _describe(item: Any, attributes: Sequence[Attribute]) -> None:
    h5py = import_h5py()
    for attribute in attributes:
        value = attribute.value
        if value.shape is None:
            item.attrs.create(attribute.name, h5py.Empty(_dtype(value.type)))
        else:
            item.attrs.create(attribute.name, _array(value), shape=value.shape, dtype=_dtype(value.type))


def _create_data(group: Any, last: str, value: Value) -> Any:
    h5py = import_h5py()
    if value.shape is None:
        return group.create_dataset(last, data=h5py.Empty(_dtype(value.type)))
    return group.create_dataset(last, data=_array(value), shape=value.shape, dtype=_dtype(value.type))


def _dtype(kind: str) -> Any:
    """What h5py makes the HDF5 type from."""
    h5py = import_h5py()
    if kind in VARIABLE:
        return h5py.string_dtype("ascii" if kind == "ascii" else "utf-8")
    if kind.startswith("S"):
        return h5py.string_dtype("utf-8" if kind.endswith("u") else "ascii", int(kind[1:].rstrip("u")))
    return np.dtype(np.bool_ if kind == "bool" else kind)


def _array(value: Value) -> Any:
    assert value.shape is not None
    if value.strings is not None:
        array = np.empty(len(value.strings), object)
        array[:] = [text.encode() for text in value.strings]
        return array.reshape(value.shape)
    kind = np.dtype(f"S{value.type[1:].rstrip('u')}") if value.type.startswith("S") else _dtype(value.type)
    return np.frombuffer(bytes.fromhex(value.data or ""), kind).reshape(value.shape)


def _create(group: Any, last: str, info: TensorInfo, item: TensorItem | None) -> Stored:
    """Make the dataset of a tensor: as the structure says, or whole in one piece, without its numbers."""
    h5py = import_h5py()
    kind = numpy_dtype(info.dtype)
    dtype = info.dtype.word if kind is None or kind.isbuiltin == _REGISTERED else kind
    shape = info.shape if info.dtype.bits >= 8 else (info.words,)
    if item is not None and not chunk_fits(item, shape):
        item = replace(item, chunks=None, largest=None, filters=())
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_obj_track_times(False)
    settings.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    limits = None
    if item is not None and item.chunks is not None:
        settings.set_chunk(item.chunks)
        for number, values in item.filters:
            settings.set_filter(number, h5py.h5z.FLAG_OPTIONAL, values)
        limits = tuple(size or h5py.h5s.UNLIMITED for size in item.largest) if item.largest else None
    else:
        settings.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    space = h5py.h5s.create_simple(shape, limits) if shape else h5py.h5s.create(h5py.h5s.SCALAR)
    swapped = item is not None and item.big_endian and info.dtype.word.itemsize > 1
    type_ = h5py.h5t.py_create(dtype.newbyteorder(">") if swapped else dtype, logical=True)
    dataset = h5py.Dataset(h5py.h5d.create(group.id, None, type_, space, settings))
    group[last] = dataset
    if dtype is not kind:
        # Of fixed length: HDF5 puts other strings into a heap, which it may search for ever once damaged.
        dataset.attrs[DTYPE_MARK] = np.bytes_(info.dtype.name.encode())
    if info.dtype.bits < 8:
        dataset.attrs[SHAPE_MARK] = np.array(info.shape, np.int64)
    if item is not None:
        _describe(dataset, item.attributes)
    return Stored(info, dataset, swapped)
