"""Header and trailer: the fixed bytes at both ends of a file (section 2 of the specification)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from blake3 import blake3

from diffpack.errors import CorruptFileError, TruncatedFileError, UnsupportedFormatError
from diffpack.format.limits import MANIFEST_BYTES, MANIFEST_DECODED

MAGIC = b"\x89DPK\r\n\x1a\n"
CLOSING_MAGIC = MAGIC[::-1]
MAJOR, MINOR = 1, 2
"""The newest version of the format that is written, which is not the library's."""

_HEADER = struct.Struct("<8sHHI")
_TRAILER = struct.Struct("<QQQII32s8s")
HEADER_BYTES = _HEADER.size
TRAILER_BYTES = _TRAILER.size
_DIGESTED = 32  # trailer bytes before its digest
MANIFEST_CODECS = ("raw", "zstd")


@dataclass(frozen=True)
class Trailer:
    """Where the manifest stands and how it is stored."""

    offset: int
    stored: int
    decoded: int
    codec: str


def pack_header(minor: int = 0) -> bytes:
    """The 16 bytes a file starts with; `minor` is the oldest version that has all its features."""
    return _HEADER.pack(MAGIC, MAJOR, minor, 0)


def pack_trailer(trailer: Trailer, stored_manifest: bytes, header: bytes) -> bytes:
    """The 72 bytes that end a file which starts with `header`."""
    codec = MANIFEST_CODECS.index(trailer.codec)
    fields = (trailer.offset, trailer.stored, trailer.decoded, codec, 0)
    start = _TRAILER.pack(*fields, b"", b"")[:_DIGESTED]
    digest = blake3(header + stored_manifest + start).digest()
    return _TRAILER.pack(*fields, digest, CLOSING_MAGIC)


def check_header(data: bytes, where: str) -> tuple[int, int]:
    """Check the first bytes of a file; give its version (major, minor).

    Raises `TruncatedFileError`, `UnsupportedFormatError`, `CorruptFileError`.
    """
    if len(data) < HEADER_BYTES or data[: len(MAGIC)] != MAGIC:
        raise TruncatedFileError(f"{where}: not a diffpack file (it does not start with the magic)", "F1")
    _, major, minor, flags = _HEADER.unpack(data)
    if major != MAJOR:
        message = f"{where}: format version {major}; this diffpack reads {MAJOR}.x: upgrade diffpack"
        raise UnsupportedFormatError(message, "F2")
    if flags:
        raise CorruptFileError(f"{where}: reserved header bits are set", "F3")
    return major, minor


def parse_trailer(data: bytes, file_size: int, where: str) -> Trailer:
    """Read the last bytes of a file of `file_size` bytes. Raises `TruncatedFileError`, `CorruptFileError`."""
    if len(data) < TRAILER_BYTES or data[-len(CLOSING_MAGIC) :] != CLOSING_MAGIC:
        raise TruncatedFileError(f"{where}: truncated (it does not end with the closing magic)", "F1")
    offset, stored, decoded, codec, reserved, _, _ = _TRAILER.unpack(data)
    if reserved:
        raise CorruptFileError(f"{where}: reserved trailer bits are set", "F3")
    if offset < HEADER_BYTES or offset + stored + TRAILER_BYTES != file_size:
        raise CorruptFileError(f"{where}: the trailer does not fit the file's {file_size} bytes", "F4")
    if codec >= len(MANIFEST_CODECS):
        raise CorruptFileError(f"{where}: unknown manifest codec {codec}", "F6")
    if max(stored, decoded) > MANIFEST_BYTES or decoded > MANIFEST_DECODED.most(stored):
        raise CorruptFileError(f"{where}: a manifest of {max(stored, decoded)} bytes is over the limit", "F8")
    return Trailer(offset, stored, decoded, MANIFEST_CODECS[codec])


def check_digest(header: bytes, stored_manifest: bytes, trailer: bytes, where: str) -> bytes:
    """Check the digest over header, manifest and trailer, and give it. Raises `CorruptFileError`."""
    digest = blake3(header + stored_manifest + trailer[:_DIGESTED]).digest()
    if digest != trailer[_DIGESTED : _DIGESTED + 32]:
        raise CorruptFileError(f"{where}: the manifest is damaged (its digest does not match)", "F5")
    return digest
