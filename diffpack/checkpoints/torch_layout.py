"""How a `torch.save` file is laid out, planned before the first byte of a tensor is known.

It is a zip archive of stored members: a pickle that builds the dict (`data.pkl`) and one member for each storage
(`data/0`, `data/1`, ...), aligned so that they can be mapped. torch writes it in one pass; planned, each tensor's bytes
go to their place as they come, and only the checksums are filled in at the end. The members and the pickle are those
torch writes, less the ones that tell its version: the same tensors give the same bytes with any torch, or without.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from diffpack.checkpoints.torch_dtypes import STORAGES, TORCH, torch_shape
from diffpack.tensors.info import TensorInfo

ALIGNMENT = 64
"""What torch aligns storages to."""
CHECKSUM_AT = 14  # in a local header
_ROOT = "archive/"
_LOCAL, _CENTRAL, _END = struct.Struct("<4s5H3I2H"), struct.Struct("<4s6H3I5H2I"), struct.Struct("<4s4H2IH")
_END_64, _LOCATOR = struct.Struct("<4sQ2H2I4Q"), struct.Struct("<4sIQI")
_VERSION, _VERSION_64 = 20, 45  # of zip, needed to read a member
_UTF8 = 0x800  # flag: names are UTF-8
_DATE = 0x21  # 1980-01-01: no clock in a file
_MOST_32, _MOST_16 = 0xFFFFFFFF, 0xFFFF
_EXTRA_64 = 1  # id of the field that holds sizes and offsets of more than 32 bits
_PADDING = 0x4246  # id of the field whose only use is its length; torch's "FB"


@dataclass(frozen=True)
class Member:
    """A member of the archive: where its local header and its data begin, and how many bytes it has."""

    name: str
    header: int
    start: int
    size: int


@dataclass(frozen=True)
class TorchLayout:
    """Where everything goes. `homes` leads from a tensor to its member; tied ones have the same.

    `pieces` are bytes by their offset, known beforehand: headers, and members that are no tensors, whose `checksums`
    (CRC-32) are known, too. The directory follows at `end`.
    """

    members: tuple[Member, ...]
    homes: Mapping[str, Member]
    pieces: Mapping[int, bytes]
    checksums: Mapping[str, int]
    end: int

    def directory(self, checksums: Mapping[str, int]) -> bytes:
        """What stands behind the last member, given each member's CRC-32 by its name."""
        entries = b"".join(_central(member, checksums[member.name]) for member in self.members)
        count, size = len(self.members), len(entries)
        large = count >= _MOST_16 or self.end + size >= _MOST_32
        end_64 = b""
        if large:
            end_64 = _END_64.pack(
                b"PK\x06\x06", _END_64.size - 12, _VERSION_64, _VERSION_64, 0, 0, count, count, size, self.end
            ) + _LOCATOR.pack(b"PK\x06\x07", 0, self.end + size, 1)
        some, at = min(count, _MOST_16), min(self.end, _MOST_32)
        return entries + end_64 + _END.pack(b"PK\x05\x06", 0, 0, some, some, min(size, _MOST_32), at, 0)


def plan(tensors: Mapping[str, TensorInfo], ties: Mapping[str, str]) -> TorchLayout:
    """Lay tensors out in their order; all must have a `torch_shape`.

    `ties` lead from names to those of the same tensor, which are among `tensors` and not among `ties`.
    """
    members: list[Member] = []
    pieces: dict[int, bytes] = {}
    checksums: dict[str, int] = {}
    end = 0

    def add(name: str, size: int) -> Member:
        nonlocal end
        member, header = _place(_ROOT + name, size, end)
        members.append(member)
        pieces[member.header] = header
        end = member.start + size
        return member

    keys: dict[str, str] = {}
    for name in tensors:
        if name not in ties:
            keys[name] = str(len(keys))
    keys |= {name: keys[first] for name, first in ties.items()}
    for name, content in (("data.pkl", _pickle(tensors, keys)), ("byteorder", b"little"), ("version", b"3\n")):
        member = add(name, len(content))
        pieces[member.start], checksums[member.name] = content, zlib.crc32(content)
    homes = {name: add(f"data/{key}", tensors[name].nbytes) for name, key in keys.items() if name not in ties}
    homes |= {name: homes[first] for name, first in ties.items()}
    return TorchLayout(tuple(members), homes, pieces, checksums, end)


def _place(name: str, size: int, at: int) -> tuple[Member, bytes]:
    """Place a member behind `at`, its data aligned; and its local header, still without a checksum."""
    raw = name.encode()
    sizes = struct.pack("<2H2Q", _EXTRA_64, 16, size, size) if size >= _MOST_32 else b""
    head = _LOCAL.size + len(raw) + len(sizes) + 4
    padding = -(at + head) % ALIGNMENT
    extra = sizes + struct.pack("<2H", _PADDING, padding) + bytes(padding)
    version = _VERSION_64 if sizes else _VERSION
    short = min(size, _MOST_32)
    header = _LOCAL.pack(b"PK\x03\x04", version, _UTF8, 0, 0, _DATE, 0, short, short, len(raw), len(extra))
    return Member(name, at, at + head + padding, size), header + raw + extra


def _central(member: Member, checksum: int) -> bytes:
    raw = member.name.encode()
    wide = [member.size] * 2 if member.size >= _MOST_32 else []
    wide += [member.header] if member.header >= _MOST_32 else []
    extra = struct.pack(f"<2H{len(wide)}Q", _EXTRA_64, 8 * len(wide), *wide) if wide else b""
    version, short = _VERSION_64 if wide else _VERSION, min(member.size, _MOST_32)
    return (
        _CENTRAL.pack(
            b"PK\x01\x02", version, version, _UTF8, 0, 0, _DATE, checksum, short, short,
            len(raw), len(extra), 0, 0, 0, 0, min(member.header, _MOST_32),
        ) + raw + extra
    )  # fmt: skip


def _pickle(tensors: Mapping[str, TensorInfo], keys: Mapping[str, str]) -> bytes:
    """The program that builds a dict of tensors, as `torch.save` writes it (protocol 2)."""
    items = b"".join(_text(name) + _tensor(info, keys[name]) for name, info in tensors.items())
    return b"\x80\x02}" + (b"(" + items + b"u" if items else b"") + b"."


def _tensor(info: TensorInfo, key: str) -> bytes:
    dtype, shape = TORCH[info.dtype.name], torch_shape(info.dtype.name, info.shape)
    assert shape is not None
    strides = tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))
    known = STORAGES.get(dtype)
    storage = _global("torch", known) if known else _global("torch.storage", "UntypedStorage")
    count = prod(shape) if known else info.nbytes
    place = b"(" + _text("storage") + storage + _text(key) + _text("cpu") + _integer(count) + b"tQ"
    no_hooks = _global("collections", "OrderedDict") + b")R"
    arguments = place + _integer(0) + _tuple(shape) + _tuple(strides) + b"\x89" + no_hooks
    if known:
        return _global("torch._utils", "_rebuild_tensor_v2") + b"(" + arguments + b"tR"
    return _global("torch._utils", "_rebuild_tensor_v3") + b"(" + arguments + _global("torch", dtype) + b"tR"


def _global(module: str, name: str) -> bytes:
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


def _text(text: str) -> bytes:
    raw = text.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def _tuple(numbers: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(_integer, numbers)) + b"t"


def _integer(number: int) -> bytes:
    """A whole number from 0, in as few bytes as a pickle can."""
    if number < 1 << 8:
        return b"K" + struct.pack("<B", number)
    if number < 1 << 16:
        return b"M" + struct.pack("<H", number)
    if number < 1 << 31:
        return b"J" + struct.pack("<i", number)
    raw = number.to_bytes(number.bit_length() // 8 + 1, "little")
    return b"\x8a" + struct.pack("<B", len(raw)) + raw
