"""Diffs changed so that their digests fit: manifests token by token, numbers of streams one by one."""

from __future__ import annotations

import json
import random
from pathlib import Path

from blake3 import blake3

from diffpack.format import frame, streams
from diffpack.format.manifest import to_canonical
from diffpack.format.streams.zstd import decompress
from tests.fuzz.changes import NUMBERS, token
from tests.tools import ROOT


def fixtures(pattern: str = "*") -> list[Path]:
    """Valid diffs of all versions of the format, by their names."""
    return [path for path in sorted((ROOT / "fixtures").rglob(f"{pattern}.dpk")) if "invalid" not in path.parts]


def parted(data: bytes) -> tuple[bytes, bytes]:
    """Header and chunks, and the manifest as it is decoded."""
    trailer = frame.parse_trailer(data[-frame.TRAILER_BYTES :], len(data), "seed")
    stored = data[trailer.offset : trailer.offset + trailer.stored]
    return data[: trailer.offset], stored if trailer.codec == "raw" else decompress(
        stored, trailer.decoded, "seed", "F6"
    )


def joined(chunks: bytes, manifest: bytes) -> bytes:
    """A file of header and chunks, and a manifest, with a trailer that fits them."""
    new = frame.Trailer(len(chunks), len(manifest), len(manifest), "raw")
    return chunks + manifest + frame.pack_trailer(new, manifest, chunks[: frame.HEADER_BYTES])


def remanifest(data: bytes, rng: random.Random) -> bytes:
    """Change tokens of the manifest."""
    chunks, manifest = parted(data)
    return joined(chunks, token(manifest, rng))


def renumber(data: bytes, rng: random.Random) -> bytes:
    """Change numbers of raw streams, and how many there are."""
    start, text = parted(data)
    manifest, body, at = json.loads(text), [], frame.HEADER_BYTES
    chunks = manifest["chunks"]
    for chunk in chunks:
        parts = []
        for _, _, _, size in chunk["streams"]:
            parts.append(start[at : at + size])
            at += size
        body.append(parts)
    places = [(i, j) for i, chunk in enumerate(chunks) for j, row in enumerate(chunk["streams"]) if row[0] == "raw"]
    for i, j in rng.choices(places, k=rng.randint(1, 3)) if places else []:
        row = chunks[i]["streams"][j]
        width = int(row[1][1:]) // 8
        body[i][j] = _renumbered(body[i][j], width, rng)
        row[2:] = len(body[i][j]) // width, len(body[i][j])
    return joined(start[: frame.HEADER_BYTES] + _tabled(chunks, body), to_canonical(manifest))


def _renumbered(data: bytes, width: int, rng: random.Random) -> bytes:
    """Change a number; or repeat it, or leave it out."""
    count = len(data) // width
    at = rng.randrange(count + 1) * width
    old = data[at : at + width]
    value = rng.choice([*NUMBERS, int.from_bytes(old, "little") ^ 1 << rng.randrange(8 * width), rng.randrange(256)])
    new = (value % (1 << 8 * width)).to_bytes(width, "little")
    match rng.randrange(8):
        case 0:
            new = old * rng.choice([0, 2, 100])
        case 1:
            new = new * rng.choice([2, 100])
    return data[:at] + new + data[at + width :]


def _tabled(chunks: list[dict[str, object]], body: list[list[bytes]]) -> bytes:
    for chunk, parts in zip(chunks, body, strict=True):
        data = b"".join(parts)
        chunk["bytes"], chunk["digest"] = len(data), blake3(data).hexdigest()
    return b"".join(part for parts in body for part in parts)


def without_codecs(data: bytes) -> bytes:
    """The same diff with every stream raw, so that its numbers can be changed."""
    start, text = parted(data)
    manifest, body, at = json.loads(text), [], frame.HEADER_BYTES
    for chunk in manifest["chunks"]:
        parts = []
        for row in chunk["streams"]:
            codec, dtype, count, size = row
            numbers = streams.decode(codec, dtype, count, start[at : at + size], "seed")
            parts.append(numbers.tobytes())
            row[0], row[3] = "raw", len(parts[-1])
            at += size
        body.append(parts)
    manifest["requires"] = [feature for feature in manifest["requires"] if feature not in streams.SINCE]
    return joined(start[: frame.HEADER_BYTES] + _tabled(manifest["chunks"], body), to_canonical(manifest))
