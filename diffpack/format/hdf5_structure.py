"""What an HDF5 file holds beside the bits of its tensors, as the manifest says it (rule L5).

Groups and their order, attributes, data that is no tensor, links, and how each tensor is stored. Keras keeps the names
of layers and weights, the model's and the training's configuration there.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from math import prod
from typing import Any

import msgspec

from diffpack.errors import CorruptFileError

VARIABLE = frozenset({"ascii", "utf8"})
"""Types of strings of any length, by their character set; all others hold a fixed number of bytes."""
FILTERS = frozenset({1, 2, 3, 32000})
"""HDF5's filters that every reader has, by their number: deflate, shuffle, fletcher32, lzf."""
_FIXED = re.compile(r"([<>|])([biufc])(1|2|4|8|16)|S([1-9]\d{0,8})(u?)|(bool)")
_DIMENSIONS = 32  # HDF5 has no more
_LARGEST_CHUNK = 1 << 20  # words of a chunk that may be more than its dataset has, which may grow


class Value(msgspec.Struct, frozen=True, omit_defaults=True):
    """An array of numbers or strings: `data` in hex for a type of fixed size, `strings` for those of variable length.

    `type` is `bool`, a NumPy type (`<f4`), `S12` (12 bytes of ASCII), `S12u` (of UTF-8), `ascii` or `utf8`. `shape` is
    None for HDF5's null, which has no data.
    """

    type: str
    shape: tuple[int, ...] | None
    data: str | None = None
    strings: tuple[str, ...] | None = None


class Attribute(msgspec.Struct, frozen=True):
    """A named value of a group or a dataset."""

    name: str
    value: Value


class GroupItem(msgspec.Struct, frozen=True, tag="group", tag_field="kind"):
    """A group; `ordered` if it keeps the order in which its members were made."""

    path: str
    ordered: bool
    attributes: tuple[Attribute, ...]


class TensorItem(msgspec.Struct, frozen=True, tag="tensor", tag_field="kind"):
    """A dataset that is a tensor: its byte order, chunks, largest shape (0: no limit) and filters, not its numbers."""

    path: str
    big_endian: bool
    chunks: tuple[int, ...] | None
    largest: tuple[int, ...] | None
    filters: tuple[tuple[int, tuple[int, ...]], ...]
    attributes: tuple[Attribute, ...]


class DataItem(msgspec.Struct, frozen=True, tag="data", tag_field="kind"):
    """A dataset that is no tensor, whole."""

    path: str
    value: Value
    attributes: tuple[Attribute, ...]


class LinkItem(msgspec.Struct, frozen=True, tag="link", tag_field="kind"):
    """A further name of an item before it, or (`soft`) a path that is looked up when it is followed."""

    path: str
    target: str
    soft: bool


Item = GroupItem | TensorItem | DataItem | LinkItem


class FileStructure(msgspec.Struct, frozen=True):
    """A whole file; items stand in the order of the file, each after the group it is in."""

    ordered: bool
    attributes: tuple[Attribute, ...]
    items: tuple[Item, ...]

    @property
    def tensors(self) -> dict[str, TensorItem]:
        """The tensors by name."""
        return {item.path: item for item in self.items if isinstance(item, TensorItem)}


def to_content(structure: FileStructure) -> dict[str, Any]:
    """A structure as plain JSON values."""
    content: dict[str, Any] = msgspec.to_builtins(structure)
    return content


def from_content(content: dict[str, Any], where: str) -> FileStructure:
    """Type and check what a manifest says of a file's structure. Raises `CorruptFileError` (L5)."""
    try:
        structure = msgspec.convert(content, FileStructure, strict=True)
    except msgspec.ValidationError as error:
        raise CorruptFileError(f"{where}: structure: {error}", "L5") from None
    seen: dict[str, Item] = {}
    for item in structure.items:
        fault = _fault(item, seen)
        if fault:
            raise CorruptFileError(f"{where}: structure: {item.path!r}: {fault}", "L5")
        seen[item.path] = item
    for attribute in _attributes(structure):
        if not attribute.name or "\0" in attribute.name or not _fits(attribute.value):
            raise CorruptFileError(f"{where}: structure: the attribute {attribute.name!r}: no such value", "L5")
    return structure


def item_bytes(kind: str) -> int | None:
    """Bytes of one item of a type of fixed size; None for strings of variable length. Raises `ValueError`."""
    if kind in VARIABLE:
        return None
    found = _FIXED.fullmatch(kind)
    if found is None:
        raise ValueError(kind)
    return 1 if found[6] else int(found[4] or found[3])


def check_tensors(content: Mapping[str, Any], names: Collection[str], where: str) -> None:
    """Check that a structure has a place for each tensor of the result, and no other. Raises `CorruptFileError`."""
    if {item["path"] for item in content["items"] if item["kind"] == "tensor"} != set(names):
        raise CorruptFileError(f"{where}: structure: its tensors are not those of the result", "L5")


def _attributes(content: FileStructure) -> Iterator[Attribute]:
    yield from content.attributes
    for item in content.items:
        if not isinstance(item, LinkItem):
            yield from item.attributes


def _fault(item: Item, seen: Mapping[str, Item]) -> str:
    """What is wrong with an item that comes after those `seen`, or nothing."""
    group, slash, last = item.path.rpartition("/")
    if last in {"", ".", ".."} or "\0" in item.path or item.path in seen:
        return "a bad name, or one that stands there twice"
    if slash and not isinstance(seen.get(group), GroupItem):
        return "not in a group"
    if isinstance(item, LinkItem):
        if not item.target or "\0" in item.target or not (item.soft or item.target in seen):
            return "a link to nothing"
    elif isinstance(item, TensorItem):
        if any(
            number not in FILTERS or len(values) > 8 or max(values, default=0) >> 32 for number, values in item.filters
        ):
            return "an unknown filter"
        if item.chunks is None and (item.filters or item.largest is not None):
            return "filters, and no chunks"
        if max(len(item.chunks or ()), len(item.largest or ())) > _DIMENSIONS:
            return "too many dimensions"
        if item.chunks is not None and (not item.chunks or min(item.chunks) < 1 or prod(item.chunks) >> 32):
            return "bad chunks"
    elif isinstance(item, DataItem) and not _fits(item.value):
        return "no such value"
    return ""


def _fits(value: Value) -> bool:
    """Tell whether a value is of its type and shape."""
    try:
        size = item_bytes(value.type)
    except ValueError:
        return False
    if value.shape is None:
        return value.data is None and value.strings is None
    if len(value.shape) > _DIMENSIONS:
        return False
    count = prod(value.shape)
    if size is None:
        strings = value.strings
        return (
            value.data is None and strings is not None and len(strings) == count and not any("\0" in s for s in strings)
        )
    digits = value.data
    return value.strings is None and digits is not None and len(digits) == 2 * size * count and _is_hex(digits)


def _is_hex(text: str) -> bool:
    return re.fullmatch(r"[0-9a-f]*", text) is not None


def chunk_fits(item: TensorItem, shape: tuple[int, ...]) -> bool:
    """Tell whether the chunks, and the largest shape, of a tensor are some for its shape."""
    if item.chunks is None:
        return True
    largest = item.largest or shape
    return (
        len(item.chunks) == len(shape) == len(largest)
        and all(most == 0 or most >= own for most, own in zip(largest, shape, strict=True))
        and prod(item.chunks) <= max(prod(shape), _LARGEST_CHUNK)
    )
