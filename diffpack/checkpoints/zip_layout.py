"""How a zip archive of stored members is laid out, planned before the first byte of a tensor is known.

Planned, each tensor's bytes go to their place as they come, aligned so that they can be mapped, and only the checksums
are filled in at the end. No clock and no machine is in the file: the same tensors give the same bytes.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

ALIGNMENT = 64
"""What torch aligns storages to, and NumPy the entries of arrays."""
CHECKSUM_AT = 14  # in a local header
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
class Home:
    """Where a tensor's bytes go: its member, and their beginning in the file, behind what else the member holds."""

    member: Member
    start: int
    size: int


@dataclass(frozen=True)
class ZipLayout:
    """Where everything goes. `homes` leads from a tensor to its place; tied ones have the same.

    `pieces` are bytes by their offset, known beforehand: headers, and what members begin with, whose `checksums`
    (CRC-32) are known, too. The directory follows at `end`.
    """

    members: tuple[Member, ...]
    homes: Mapping[str, Home]
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


class ZipPlan:
    """An archive while it is planned, member by member."""

    def __init__(self) -> None:
        self._members: list[Member] = []
        self._pieces: dict[int, bytes] = {}
        self._checksums: dict[str, int] = {}
        self._end = 0

    def add(self, name: str, known: bytes, more: int = 0) -> Home:
        """Add a member that begins with `known` bytes; give the place of the `more` that follow them."""
        member, header = _place(name, len(known) + more, self._end)
        self._members.append(member)
        self._pieces[member.header] = header
        if known:
            self._pieces[member.start], self._checksums[name] = known, zlib.crc32(known)
        self._end = member.start + member.size
        return Home(member, member.start + len(known), more)

    def layout(self, homes: Mapping[str, Home]) -> ZipLayout:
        """The finished plan."""
        return ZipLayout(tuple(self._members), homes, self._pieces, self._checksums, self._end)


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
