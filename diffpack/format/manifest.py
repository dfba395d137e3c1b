"""The manifest: what a diff says, without the chunks, typed and as JSON (sections 3 and 5 to 7 of the specification).

There is one canonical string of bytes for one manifest (rule M1).
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Any

import msgspec

from diffpack.errors import CorruptFileError
from diffpack.format.limits import JSON_INTEGER, MANIFEST_VALUES
from diffpack.tensors.dtypes import DTYPES, DType
from diffpack.tensors.slices import Assembly

MILLIONTHS = 10**6
"""What the file counts relative errors in."""
DIGEST_HEX = 32
"""Hex digits of a tensor's digest: 16 bytes. The whole base is held by a fingerprint of 32."""
_ENCODER = msgspec.json.Encoder(order="sorted")


class ResultSummary(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the manifest says of the result as a whole; the fingerprint is None in an unsealed diff."""

    fingerprint: str | None
    tensors: int
    entries: int
    bytes: int


class CheckpointSummary(ResultSummary, frozen=True, omit_defaults=True):
    """What the manifest says of the base as a whole."""

    fingerprint: str
    name: str | None = None
    revision: str | None = None


MatrixTable = tuple[int, int, tuple[int, ...]]
"""How the words of a record are matrices: rows, columns, and the rank of each matrix."""


class FactorTable(msgspec.Struct, frozen=True):
    """The factors of a group's records: what their numbers are, the matrices of each record, the ends of spans."""

    values: str
    matrices: tuple[MatrixTable, ...]
    ends: tuple[int, ...]

    @property
    def rank(self) -> int:
        """The largest rank of a matrix."""
        return max(max(ranks) for *_, ranks in self.matrices)


class Group(msgspec.Struct, frozen=True, omit_defaults=True):
    """Records with the same dtypes and codings; columns have one item a record."""

    dtype: str
    base_dtype: str | None = msgspec.field(name="base")
    position_coding_id: str = msgspec.field(name="positions")
    value_coding_id: str = msgspec.field(name="values")
    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    ends: tuple[int, ...]
    resized: dict[str, tuple[int, ...]]
    base_digests: str | None = None
    result_digests: str | None = None
    counts: tuple[int, ...] | None = None
    rule: str | None = None
    errors: tuple[int, ...] | None = None
    factors: FactorTable | None = None

    @property
    def tensor_dtype(self) -> DType:
        """The result tensors' dtype."""
        return DTYPES[self.dtype]


class Layout(msgspec.Struct, frozen=True, omit_defaults=True):
    """The file layout of the tuned checkpoint: (file name, header size) pairs, the shard index, digests."""

    files: tuple[tuple[str, int], ...]
    index: tuple[str, int] | None
    folder: bool
    stored: bool
    digest: str
    sha256: tuple[str, ...] | None = None


class SideFile(msgspec.Struct, frozen=True):
    """A small file beside the weights: stored in the diff, or expected in the base's folder."""

    name: str
    bytes: int
    digest: str
    stored: bool


class Structure(msgspec.Struct, frozen=True):
    """What the tuned HDF5 file holds beside its tensors (`hdf5_structure`); no content if the base's own is the same.

    `digest` is that of the content's canonical JSON.
    """

    digest: str
    content: dict[str, Any] | None


class Manifest(msgspec.Struct, frozen=True):
    """Everything a diff says but its chunk table."""

    base: CheckpointSummary
    result: ResultSummary
    exact: bool
    groups: tuple[Group, ...]
    aliases: dict[str, str]
    removed: tuple[str, ...]
    rename: tuple[tuple[str, str], ...]
    layout: Layout | None
    files: tuple[SideFile, ...]
    metadata: dict[str, str]
    recipe: dict[str, str]
    requires: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    error: int | None = None
    structure: Structure | None = None
    copies: dict[str, str] | None = None
    slices: dict[str, Assembly] | None = None


def digest_column(digests: Iterable[bytes | None]) -> str | None:
    """A group's digests as one string, of each its first 16 bytes; None if one is not known."""
    column = list(digests)
    return None if None in column else b"".join((item or b"")[: DIGEST_HEX // 2] for item in column).hex()


def to_json(manifest: Manifest) -> dict[str, Any]:
    """The manifest as plain JSON values, without `chunks`."""
    value: dict[str, Any] = msgspec.to_builtins(manifest)
    for group in value["groups"]:
        group.setdefault("base", None)
    for name in ("copies", "error", "slices", "structure"):
        if value[name] is None:
            del value[name]
    if value["layout"] is not None:
        value["layout"].setdefault("index", None)
    return value


def to_canonical(value: dict[str, Any]) -> bytes:
    """Write a value made of objects, arrays, strings, integers, booleans and null."""
    return _ENCODER.encode(value)


def from_canonical(data: bytes, file_size: int, where: str) -> dict[str, Any]:
    """Read one canonical JSON object, the manifest of a file of so many bytes.

    Raises `CorruptFileError` for anything else, and for more values than such a file may have (F8).
    """
    values = count_values(data)
    if values > MANIFEST_VALUES.most(file_size):
        raise CorruptFileError(f"{where}: a manifest of {values} values is over the limit", "F8")
    try:
        value = msgspec.json.decode(data)
        if not isinstance(value, dict):
            raise CorruptFileError(f"{where}: the manifest is not an object", "M1")
        _check_numbers(value, where)
        if to_canonical(value) != data:
            raise CorruptFileError(f"{where}: the manifest is not canonical JSON", "M1")
    except (msgspec.MsgspecError, UnicodeError, RecursionError, OverflowError) as error:
        raise CorruptFileError(f"{where}: the manifest is not JSON: {error}", "M1") from None
    return value


def count_values(data: bytes) -> int:
    """How many commas and opening brackets JSON has: at least its values, but for the first. Those in texts count."""
    return data.count(b",") + data.count(b"[") + data.count(b"{")


def _check_numbers(value: Any, where: str) -> None:
    """Check all numbers in a value, depth by depth: there may be tens of thousands of shapes."""
    layer = [value]
    while layer:
        for number in (item for item in layer if isinstance(item, int | float)):
            if isinstance(number, float) or not 0 <= number <= JSON_INTEGER:
                raise CorruptFileError(f"{where}: the manifest holds the number {number}", "M1")
        inner = [item.values() if isinstance(item, dict) else item for item in layer if isinstance(item, dict | list)]
        layer = list(chain.from_iterable(inner))
