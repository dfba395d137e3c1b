"""Throw damaged files at both readers: nothing but their own errors may come out, and nothing wrong may pass.

    make fuzz, or python -m tests.tools.fuzz --seconds 60 --files 'factors*'

Damage is made three times over: bytes changed blindly (the digests must notice), and manifests, or numbers in streams,
changed with their digests made right again (the rules must notice, or the file is still a valid one that both readers
read alike).
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import time
from pathlib import Path

from blake3 import blake3

import diffpack
from diffpack.errors import CorruptFileError, UnsupportedFormatError
from diffpack.format import frame
from diffpack.format.manifest import to_canonical
from spec import reader
from tests.tools import ROOT


def damage(data: bytes, rng: random.Random) -> bytes:
    """Change, remove, repeat or insert some bytes."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(out))
        length = rng.randint(1, 16)
        match rng.randrange(4):
            case 0:
                out[at] ^= 1 << rng.randrange(8)
            case 1:
                del out[at : at + length]
            case 2:
                out[at:at] = out[at : at + length]
            case _:
                out[at:at] = rng.randbytes(length)
        if not out:
            return b""
    return bytes(out)


def forge(data: bytes, rng: random.Random) -> bytes:
    """Damage the manifest and make trailer and digest fit it again."""
    chunks, manifest = parted(data)
    return joined(chunks, swap_token(manifest, rng) if rng.random() < 0.7 else damage(manifest, rng))


def renumber(data: bytes, rng: random.Random) -> bytes:
    """Change bytes of raw streams, and make their chunks' digests, trailer and digest fit them again."""
    start, text = parted(data)
    chunks, manifest = bytearray(start), json.loads(text)
    places, at = [], frame.HEADER_BYTES
    for chunk in manifest["chunks"]:
        for codec, _, _, size in chunk["streams"]:
            places += [(chunk, at, at + size)] if codec == "raw" and size else []
            at += size
    for chunk, first, stop in rng.choices(places, k=rng.randint(1, 3)) if places else []:
        own = rng.randrange(first, stop)
        chunks[own] = rng.choice([0, 1, 2, 0x7F, 0x80, 0xFF, chunks[own] ^ 1 << rng.randrange(8), rng.randrange(256)])
        chunk["damaged"] = True
    at = frame.HEADER_BYTES
    for chunk in manifest["chunks"]:
        if chunk.pop("damaged", False):
            chunk["digest"] = blake3(chunks[at : at + chunk["bytes"]]).hexdigest()
        at += chunk["bytes"]
    return joined(bytes(chunks), to_canonical(manifest))


def parted(data: bytes) -> tuple[bytes, bytes]:
    """Header and chunks, and the manifest as it is decoded."""
    trailer = frame.parse_trailer(data[-frame.TRAILER_BYTES :], len(data), "seed")
    stored = data[trailer.offset : trailer.offset + trailer.stored]
    manifest = stored if trailer.codec == "raw" else frame_decompress(stored, trailer.decoded)
    return data[: trailer.offset], manifest


def joined(chunks: bytes, manifest: bytes) -> bytes:
    """A file of header and chunks, and a manifest, with a trailer that fits them."""
    new = frame.Trailer(len(chunks), len(manifest), len(manifest), "raw")
    return chunks + manifest + frame.pack_trailer(new, manifest, chunks[: frame.HEADER_BYTES])


def swap_token(manifest: bytes, rng: random.Random) -> bytes:
    """Replace one number or string of the manifest by another that stands in it."""
    tokens = list(re.finditer(rb'"[^"]*"|\d+|true|false|null', manifest))
    old, new = rng.choice(tokens), rng.choice(tokens)
    return manifest[: old.start()] + new.group() + manifest[old.end() :]


def frame_decompress(stored: bytes, size: int) -> bytes:
    from diffpack.format.streams.zstd import decompress

    return decompress(stored, size, "seed", "F6")


def outcome(read: object, data: bytes, errors: tuple[type[BaseException], ...]) -> str:
    try:
        read(data)  # type: ignore[operator]
    except errors:
        return "refused"
    return "read"


def read_ours(data: bytes) -> None:
    with diffpack.open(data) as diff:
        diffpack.verify(diff, threads=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--files", default="*", help="what the fixtures to start from are called (default: all)")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    rng = random.Random(seed)
    paths = sorted((ROOT / "fixtures").rglob(f"{options.files}.dpk"))
    seeds = [path.read_bytes() for path in paths if "invalid" not in path.parts]
    counts = {"refused": 0, "read": 0}
    end = time.monotonic() + options.seconds
    while time.monotonic() < end:
        data = rng.choice(seeds)
        change = rng.choice([damage, damage, forge, renumber])
        blind = change is damage
        damaged = change(data, rng)
        ours = outcome(read_ours, damaged, (CorruptFileError, UnsupportedFormatError))
        theirs = outcome(reader.read, damaged, (reader.Invalid,))
        counts[ours] += 1
        if ours != theirs or (blind and ours == "read" and damaged != data):
            Path("fuzz-found.dpk").write_bytes(damaged)
            sys.exit(f"seed {seed}: diffpack {ours}, spec/reader.py {theirs}; the file is fuzz-found.dpk")
    print(f"seed {seed}: {counts['refused']} files refused, {counts['read']} valid ones read, by both readers alike")


if __name__ == "__main__":
    main()
