"""Diff files that are damaged, cut off or of a later format: refused, or read."""

from __future__ import annotations

import struct

import numpy as np
import pytest

import diffpack
from diffpack.errors import CorruptFileError, UnsupportedFormatError
from diffpack.format import frame


def small_diff(**options):
    base = {"a": np.arange(40, dtype=np.float32), "ids": np.arange(3)}
    tuned = {"a": base["a"].copy(), "ids": base["ids"], "new": np.ones(3, np.float16)}
    tuned["a"][::7] += 0.25
    diff = diffpack.extract(base, tuned, **options)
    data = b"".join(diff._source.read(at, 1) for at in range(diff.nbytes))
    return base, data


def read_all(data):
    with diffpack.open(data) as diff:
        diffpack.verify(diff)


@pytest.mark.parametrize("options", [{}, {"profile": "portable"}, {"values": "int8"}])
def test_every_changed_byte_is_noticed(options):
    _, data = small_diff(**options)
    read_all(data)
    for at in range(len(data)):
        for flip in (0x01, 0x80, 0xFF):
            damaged = bytearray(data)
            damaged[at] ^= flip
            with pytest.raises((CorruptFileError, UnsupportedFormatError)):
                read_all(bytes(damaged))


def test_every_truncation_is_noticed():
    _, data = small_diff()
    for length in range(len(data)):
        with pytest.raises(CorruptFileError):
            read_all(data[:length])
    with pytest.raises(CorruptFileError):
        read_all(data + b"\0")


def test_an_unknown_major_version_is_refused_and_a_minor_one_read():
    _, data = small_diff()
    with pytest.raises(UnsupportedFormatError, match="F2"):
        read_all(data[:8] + struct.pack("<H", 2) + data[10:])
    newer = bytearray(data)
    newer[10] = 7
    trailer = frame.parse_trailer(bytes(newer[-frame.TRAILER_BYTES :]), len(newer), "x")
    manifest = bytes(newer[trailer.offset : trailer.offset + trailer.stored])
    start = len(newer) - frame.TRAILER_BYTES
    digest = frame.blake3(bytes(newer[:16]) + manifest + bytes(newer[start : start + 32])).digest()
    newer[start + 32 : start + 64] = digest
    read_all(bytes(newer))
