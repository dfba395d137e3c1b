"""The structure of an HDF5 file: all it holds but the numbers of its tensors.

What cannot be said of it is named: values of compound, reference or nested types, links into other files, filters
that come with plug-ins.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from diffpack.checkpoints.hdf5_contents import DTYPE_MARK, SHAPE_MARK, Contents, import_h5py
from diffpack.format.hdf5_structure import (
    FILTERS,
    Attribute,
    DataItem,
    FileStructure,
    GroupItem,
    Item,
    LinkItem,
    TensorItem,
    Value,
)

_MOST_BYTES = 32 << 20
"""Bytes of one value; larger text or data beside the tensors is left out, and said."""


def read_structure(file: Any, contents: Contents) -> tuple[FileStructure, list[str]]:
    """Describe an open file, with the names of what was left out. Raises what h5py raises for a damaged file."""
    walk = _Walk(contents)
    walk.group(file, "")
    content = FileStructure(_ordered(file), walk.attributes(file, ""), tuple(walk.items))
    return content, walk.left_out


class _Walk:
    def __init__(self, contents: Contents) -> None:
        self.items: list[Item] = []
        self.left_out: list[str] = []
        self._contents = contents

    def group(self, group: Any, prefix: str) -> None:
        h5py = import_h5py()
        for key in group:
            path = prefix + key
            if path in self._contents.aliases:
                self._link(group, key, path)
                continue
            item = group[key]
            if isinstance(item, h5py.Group):
                self.items.append(GroupItem(path, _ordered(item), self.attributes(item, path)))
                self.group(item, path + "/")
            elif path in self._contents.tensors:
                self._tensor(item, path)
            elif isinstance(item, h5py.Dataset):
                value = _value(item.id.get_type(), item.shape, lambda item=item: item[()])
                if value is None:
                    self.left_out.append(f"{path} (a dataset of a type that is not kept)")
                else:
                    self.items.append(DataItem(path, value, self.attributes(item, path)))
            else:
                self.left_out.append(f"{path} (a named type)")

    def _link(self, group: Any, key: str, path: str) -> None:
        h5py = import_h5py()
        first = self._contents.aliases[path]
        link = group.get(key, getlink=True)
        if first is not None:
            if first in {item.path for item in self.items}:
                self.items.append(LinkItem(path, first, soft=False))
            else:
                self.left_out.append(f"{path} (a further name of {first or '/'})")
        elif isinstance(link, h5py.SoftLink):
            self.items.append(LinkItem(path, link.path, soft=True))
        else:
            self.left_out.append(f"{path} (a link into another file)")

    def _tensor(self, dataset: Any, path: str) -> None:
        settings = dataset.id.get_create_plist()
        filters = []
        for at in range(settings.get_nfilters()):
            number, _, values, _ = settings.get_filter(at)
            if number in FILTERS:
                filters.append((int(number), tuple(int(value) for value in values)))
            else:
                self.left_out.append(f"{path} (its compression by the filter {number})")
        chunks = dataset.chunks
        largest = (
            tuple(size or 0 for size in dataset.maxshape) if chunks and dataset.maxshape != dataset.shape else None
        )
        swapped = self._contents.tensors[path].swapped
        self.items.append(TensorItem(path, swapped, chunks, largest, tuple(filters), self.attributes(dataset, path)))

    def attributes(self, item: Any, path: str) -> tuple[Attribute, ...]:
        kept = []
        for name in item.attrs:
            if name in {DTYPE_MARK, SHAPE_MARK} and path in self._contents.tensors:
                continue
            raw = item.attrs.get_id(name)
            shape = None if raw.get_space().get_simple_extent_type() == import_h5py().h5s.NULL else raw.shape
            value = _value(raw.get_type(), shape, lambda item=item, name=name: item.attrs[name])
            if value is None:
                self.left_out.append(f"{path or '/'} (its attribute {name!r}, of a type that is not kept)")
            else:
                kept.append(Attribute(name, value))
        return tuple(kept)


def _ordered(group: Any) -> bool:
    """Whether a group lists its members in the order they were made."""
    h5p = import_h5py().h5p
    return bool(group.id.get_create_plist().get_link_creation_order() & h5p.CRT_ORDER_TRACKED)


def _value(kind: Any, shape: tuple[int, ...] | None, read: Any) -> Value | None:
    """A value of a type that is kept, else None."""
    name = _type_name(kind)
    if name is None:
        return None
    if shape is None:
        return Value(name, None)
    array = np.asarray(read())
    if array.shape != tuple(shape):
        return None
    if name in ("ascii", "utf8"):
        texts = [
            text if isinstance(text, bytes) else str(text).encode("utf-8", "surrogateescape") for text in array.flat
        ]
        if sum(map(len, texts)) > _MOST_BYTES:
            return None
        try:
            return Value(name, tuple(shape), strings=tuple(text.decode() for text in texts))
        except UnicodeDecodeError:
            return None
    if array.nbytes > _MOST_BYTES:
        return None
    return Value(name, tuple(shape), data=np.ascontiguousarray(array).tobytes().hex())


def _type_name(kind: Any) -> str | None:
    """The name the structure has for an HDF5 type, if NumPy holds it bit by bit."""
    h5py = import_h5py()
    text = h5py.check_string_dtype(kind.dtype) if kind.get_class() == h5py.h5t.STRING else None
    if text is not None:
        utf8 = text.encoding == "utf-8"
        if text.length is None:
            return "utf8" if utf8 else "ascii"
        return f"S{text.length}{'u' if utf8 else ''}"
    try:
        dtype = kind.dtype
    except TypeError:
        return None
    if dtype == np.bool_:
        return "bool"
    plain = kind.equal(h5py.h5t.py_create(dtype, logical=True)) and h5py.check_dtype(enum=dtype) is None
    return dtype.str if plain and dtype.kind in "iufc" and dtype.itemsize <= 16 else None
