"""Strings as SSH writes them: a length of four bytes, most significant first, and the bytes (RFC 4251, section 5)."""

from __future__ import annotations

import struct

_LENGTH = struct.Struct(">I")


def packed(*strings: bytes) -> bytes:
    """Strings, one after the other."""
    return b"".join(_LENGTH.pack(len(string)) + string for string in strings)


def unpacked(data: bytes, count: int) -> list[bytes]:
    """The `count` strings that `data` consists of. Raises `ValueError` if it is something else."""
    strings, at = [], 0
    for _ in range(count):
        start = at + _LENGTH.size
        if start > len(data):
            raise ValueError("ends too early")
        at = start + int.from_bytes(data[at:start])
        if at > len(data):
            raise ValueError("ends too early")
        strings.append(data[start:at])
    if at != len(data):
        raise ValueError("something follows its end")
    return strings
