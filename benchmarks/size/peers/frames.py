"""A small file of zstd frames under a JSON header: what the tensor layouts written here are shipped in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zstandard

Streams = list[npt.NDArray[Any]]


def save(path: Path, header: dict[str, Any], streams: Streams, level: int) -> None:
    """Write streams (1-D), each a zstd frame, behind a header that says what they are."""
    compressor = zstandard.ZstdCompressor(level=level)
    frames = [compressor.compress(stream.tobytes()) for stream in streams]
    table = [[stream.dtype.name, len(frame)] for stream, frame in zip(streams, frames, strict=True)]
    head = compressor.compress(json.dumps([header, table], separators=(",", ":")).encode())
    path.write_bytes(len(head).to_bytes(8, "little") + head + b"".join(frames))


def load(path: Path) -> tuple[dict[str, Any], Streams]:
    """Read what `save` wrote."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    decompressor = zstandard.ZstdDecompressor()
    header, table = json.loads(decompressor.decompress(data[8:start]))
    streams = []
    for dtype, size in table:
        streams.append(np.frombuffer(decompressor.decompress(data[start : start + size]), dtype))
        start += size
    return header, streams
