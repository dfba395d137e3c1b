"""The chunk table: what the manifest says of chunks and their streams (section 4 of the specification)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from blake3 import blake3

from diffpack.errors import CorruptFileError, UnsupportedFormatError
from diffpack.format import limits, streams
from diffpack.format.streams import Numbers


@dataclass(frozen=True)
class StreamSpec:
    """How one integer array is stored: codec id, dtype name, how many numbers, how many bytes."""

    codec: str
    dtype: str
    count: int
    nbytes: int

    @property
    def decoded_bytes(self) -> int:
        """How many bytes its numbers have."""
        return self.count * streams.DTYPES[self.dtype].itemsize


@dataclass(frozen=True)
class ChunkSpec:
    """One row of the chunk table; `offset` is where the chunk starts in the file."""

    offset: int
    nbytes: int
    digest: str
    streams: tuple[StreamSpec, ...]

    @property
    def codecs(self) -> set[str]:
        """The codecs of its streams."""
        return {stream.codec for stream in self.streams}

    @property
    def numbers(self) -> int:
        """How many numbers its streams have."""
        return sum(stream.count for stream in self.streams)

    def to_json(self) -> dict[str, Any]:
        """The row as the manifest holds it."""
        rows = [[spec.codec, spec.dtype, spec.count, spec.nbytes] for spec in self.streams]
        return {"bytes": self.nbytes, "digest": self.digest, "streams": rows}


@dataclass(frozen=True)
class EncodedChunk:
    """A chunk ready to be written."""

    data: bytes
    digest: str
    streams: tuple[StreamSpec, ...]


def encode_chunk(arrays: list[Numbers], profile: str) -> EncodedChunk:
    """Code integer arrays (1-D) as one chunk; `profile` as for `streams.encode`."""
    specs, parts = [], []
    for array in arrays:
        codec, data = streams.encode(array, profile)
        specs.append(StreamSpec(codec, streams.dtype_name(array.dtype), array.size, len(data)))
        parts.append(data)
    data = b"".join(parts)
    return EncodedChunk(data, blake3(data).hexdigest(), tuple(specs))


def stored_raw(chunk: EncodedChunk) -> EncodedChunk:
    """The same numbers without a codec, as large as they are."""
    arrays = decode_streams(chunk.streams, chunk.data, "a chunk to be written")
    data = b"".join(array.tobytes() for array in arrays)
    specs = [
        StreamSpec("raw", spec.dtype, spec.count, array.nbytes)
        for spec, array in zip(chunk.streams, arrays, strict=True)
    ]
    return EncodedChunk(data, blake3(data).hexdigest(), tuple(specs))


def decode_chunk(spec: ChunkSpec, data: bytes, where: str, streams_wanted: int | None = None) -> list[Numbers]:
    """Check a chunk's digest, then decode its first streams (None: all). Raises `CorruptFileError`."""
    if len(data) != spec.nbytes or blake3(data).hexdigest() != spec.digest:
        raise CorruptFileError(f"{where}: damaged (its digest does not match)", "C2")
    return decode_streams(spec.streams[:streams_wanted], data, where)


def decode_streams(specs: Sequence[StreamSpec], data: bytes, where: str) -> list[Numbers]:
    """Decode the first streams of a chunk's bytes. Raises `CorruptFileError`."""
    arrays = []
    start = 0
    for stream in specs:
        part = data[start : start + stream.nbytes]
        arrays.append(streams.decode(stream.codec, stream.dtype, stream.count, part, where))
        start += stream.nbytes
    return arrays


def parse_table(rows: Any, first_offset: int, end: int, file_size: int, where: str) -> list[ChunkSpec]:
    """Check and type the manifest's `chunks`; they fill a file of so many bytes from `first_offset` to `end`."""
    if not isinstance(rows, list):
        raise CorruptFileError(f"{where}: no proper chunk table", "M2")
    if len(rows) > limits.CHUNKS:
        raise CorruptFileError(f"{where}: {len(rows)} chunks are over the limit", "F8")
    bodies = [_parse_row(row, f"{where}: chunk {index}") for index, row in enumerate(rows)]
    offsets = list(accumulate((nbytes for nbytes, _, _ in bodies), initial=first_offset))
    if offsets[-1] != end:
        raise CorruptFileError(f"{where}: the chunks do not fill the file up to the manifest", "F7")
    found = [ChunkSpec(offset, *body) for offset, body in zip(offsets, bodies, strict=False)]
    numbers = sum(chunk.numbers for chunk in found)
    if numbers > limits.NUMBERS.most(file_size):
        raise CorruptFileError(f"{where}: {numbers} numbers in {file_size} bytes are over the limit", "F8")
    return found


def _parse_row(row: Any, where: str) -> tuple[int, str, tuple[StreamSpec, ...]]:
    match row:
        case {"bytes": int(nbytes), "digest": str(digest), "streams": [*items]} if not isinstance(nbytes, bool):
            pass
        case _:
            raise CorruptFileError(f"{where}: not an object of bytes, digest and streams", "M2")
    if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
        raise CorruptFileError(f"{where}: its digest is not 64 hex digits", "M2")
    if not items:
        raise CorruptFileError(f"{where}: a chunk without streams", "C7")
    if len(items) > limits.STREAMS_A_CHUNK:
        raise CorruptFileError(f"{where}: {len(items)} streams", "F8")
    specs = tuple(_parse_stream(item, where) for item in items)
    if sum(spec.nbytes for spec in specs) != nbytes:
        raise CorruptFileError(f"{where}: its streams do not fill it", "C1")
    decoded = sum(spec.decoded_bytes for spec in specs)
    if decoded > limits.CHUNK_DECODED_BYTES:
        raise CorruptFileError(f"{where}: {decoded} bytes of numbers are over the limit", "F8")
    return nbytes, digest, specs


def _parse_stream(item: Any, where: str) -> StreamSpec:
    match item:
        case [str(codec), str(dtype), int(count), int(nbytes)] if not {type(count), type(nbytes)} & {bool}:
            pass
        case _:
            raise CorruptFileError(f"{where}: a stream is not [codec, dtype, count, bytes]", "M2")
    if dtype not in streams.DTYPES:
        raise CorruptFileError(f"{where}: unknown stream dtype {dtype!r}", "C3")
    if codec not in streams.CODECS:
        raise UnsupportedFormatError(f"{where}: unknown codec {codec!r}: upgrade diffpack", "C3")
    decoded = count * streams.DTYPES[dtype].itemsize
    if decoded > limits.STREAM_DECODED_BYTES or nbytes > limits.STREAM_STORED_BYTES:
        raise CorruptFileError(f"{where}: a stream of {max(decoded, nbytes)} bytes is over the limit", "F8")
    if count == 0 and (codec != "raw" or nbytes):
        raise CorruptFileError(f"{where}: an empty stream that is not raw and empty", "C5")
    return StreamSpec(codec, dtype, count, nbytes)


CHUNK_VALUES = 1 << 18
"""Values a chunk: pco fits its bins to them (MiniLM pair: 32.9 % at 2^18, 33.1 % at 2^20)."""
