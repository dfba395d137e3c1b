"""Write .dpk files piece by piece, right or wrong: each piece can be given instead of computed.

It knows spec/format.md, and shares nothing with diffpack or with spec/reader.py.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import zstandard
from blake3 import blake3
from pcodec import ChunkConfig, standalone

MAGIC = bytes.fromhex("89 44 50 4B 0D 0A 1A 0A")
CLOSING = bytes.fromhex("0A 1A 0A 0D 4B 50 44 89")
BITS = {"BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "BF16": 16}  # of an entry; the others end with the number
WORD = {"BOOL": 1, "BF16": 2, "C64": 4, "F8_E8M0": 1, "F4": 1, "F6_E2M3": 1, "F6_E3M2": 1}  # bytes, where not BITS/8
FLOAT_ORDER = {"F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F16", "BF16", "F32", "F64", "C64"}
INTEGER_ORDER = {"BOOL", "U8", "I8", "F8_E8M0", "U16", "I16", "U32", "I32", "U64", "I64", "F4", "F6_E2M3", "F6_E3M2"}

Raw = tuple[str, tuple[int, ...], bytes]  # dtype, shape, bytes
Tensors = Mapping[str, Raw]


class Stream(NamedTuple):
    """A coded stream, as the chunk table describes it."""

    codec: str
    dtype: str
    length: int
    data: bytes


def numbers(dtype: str, values: Iterable[int]) -> np.ndarray[Any, Any]:
    return np.array(list(values), f"<{dtype[0]}{int(dtype[1:]) // 8}")


def stream(dtype: str, values: Iterable[int], codec: str = "raw") -> Stream:
    array = numbers(dtype, values)
    if codec == "raw" or len(array) == 0:
        return Stream("raw", dtype, len(array), array.tobytes())
    if codec == "pco":
        return Stream("pco", dtype, len(array), standalone.simple_compress(array, ChunkConfig(enable_8_bit=True)))
    width = array.itemsize
    mask = (1 << 8 * width) - 1
    zigzag = [(2 * x if x >= 0 else -2 * x - 1) & mask if dtype[0] == "i" else x for x in array.tolist()]
    planes = b"".join(bytes(x >> 8 * plane & 255 for x in zigzag) for plane in range(width))
    return Stream("zstd", dtype, len(array), zstandard.ZstdCompressor().compress(planes))


def canonical(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def digest16(data: bytes) -> str:
    return blake3(data).digest()[:16].hex()


def word_bytes(dtype: str) -> int:
    return WORD.get(dtype) or entry_bits(dtype) // 8


def entry_bits(dtype: str) -> int:
    return BITS.get(dtype) or (8 if dtype.startswith("F8") else int(dtype[1:]))


def byte_count(dtype: str, shape: Iterable[int]) -> int:
    entries = 1
    for dim in shape:
        entries *= dim
    return (entries * entry_bits(dtype) + 7) // 8


def about(tensors: Tensors) -> dict[str, Any]:
    """What a manifest says of the base and of the result, the fingerprint (section 8) included."""
    text = b"diffpack fingerprint 1\n" + len(tensors).to_bytes(8, "little")
    entries = 0
    for name in sorted(tensors, key=str.encode):
        dtype, shape, data = tensors[name]
        text += len(name.encode()).to_bytes(4, "little") + name.encode()
        text += bytes([len(dtype)]) + dtype.encode() + bytes([len(shape)])
        text += b"".join(dim.to_bytes(8, "little") for dim in shape) + blake3(data).digest()
        entries += int(np.prod(shape, dtype=object))
    total = sum(len(data) for _, _, data in tensors.values())
    return {"fingerprint": blake3(text).hexdigest(), "tensors": len(tensors), "entries": entries, "bytes": total}


def words(raw: Raw) -> list[int]:
    """The ordered integers of a tensor's words."""
    dtype, _, data = raw
    width = word_bytes(dtype)
    signed = [int.from_bytes(data[i : i + width], "little", signed=True) for i in range(0, len(data), width)]
    return [x ^ (1 << 8 * width - 1) - 1 if x < 0 and dtype in FLOAT_ORDER else x for x in signed]


def steps(old: Raw, new: Raw) -> list[int]:
    """The steps from one tensor to another of the same dtype: in the range of a signed word."""
    bits = 8 * word_bytes(new[0])
    low = [(b - a) % (1 << bits) for a, b in zip(words(old), words(new), strict=True)]
    return [x - (1 << bits) if x >> bits - 1 else x for x in low]


def group(names: Sequence[str], old: Tensors, new: Tensors, **members: Any) -> dict[str, Any]:
    """A group of records of one dtype, with one span; `members` replace what stands in it, or drop it if None."""
    dtype = new[names[0]][0]
    base = members.get("base", dtype)
    length = sum(len(new[name][2]) for name in names) // word_bytes(dtype)
    result: dict[str, Any] = {
        "dtype": dtype,
        "base": base,
        "positions": "gaps",
        "values": "exact",
        "names": list(names),
        "shapes": [list(new[name][1]) for name in names],
        "resized": {},
        "ends": [length] if length else [],
        "result_digests": "".join(digest16(new[name][2]) for name in names),
    }
    if base is not None:
        result["base_digests"] = "".join(digest16(old[name][2]) for name in names)
        result["resized"] = {name: list(old[name][1]) for name in names if old[name][1] != new[name][1]}
    result.update(members)
    return {key: value for key, value in result.items() if value is not None or key == "base"}


def spans(line: Sequence[int], ends: Sequence[int], positions: str, dtype: str, codec: str) -> list[list[Stream]]:
    """The chunks of a line of values (0: no change) cut at `ends`."""
    chunks = []
    for start, stop in pairwise([0, *ends]):
        part = line[start:stop]
        if positions == "all":
            chunks.append([stream(dtype, part, codec)])
            continue
        places = [i for i, value in enumerate(part) if value]
        gaps = [place - before - 1 for before, place in pairwise([-1, *places])]
        chunks.append([stream("u32", gaps, codec), stream(dtype, [part[i] for i in places], codec)])
    return chunks


def manifest(old: Tensors, new: Tensors, groups: Sequence[Mapping[str, Any]], **members: Any) -> dict[str, Any]:
    """A manifest without a chunk table and without `requires`: `build` adds them unless they are given."""
    return {
        "base": about(old),
        "result": about(new),
        "exact": all(group["values"] == "exact" for group in groups),
        "optional": [],
        "groups": list(groups),
        "aliases": {},
        "removed": [],
        "rename": [],
        "layout": None,
        "files": [],
        "metadata": {},
        "recipe": {},
        **members,
    }


def header(tensors: Tensors, metadata: Mapping[str, str] | None = None) -> bytes:
    """A safetensors header of tensors in the order given."""
    entries: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    end = 0
    for name, (dtype, shape, data) in tensors.items():
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + len(data)]}
        end += len(data)
    text = json.dumps(entries).encode()
    return text + b" " * (-len(text) % 8)


def safetensors(tensors: Tensors, metadata: Mapping[str, str] | None = None) -> bytes:
    text = header(tensors, metadata)
    return len(text).to_bytes(8, "little") + text + b"".join(data for _, _, data in tensors.values())


def table(chunks: Sequence[Sequence[Stream]]) -> list[dict[str, Any]]:
    rows = []
    for streams in chunks:
        data = b"".join(s.data for s in streams)
        listed = [[s.codec, s.dtype, s.length, len(s.data)] for s in streams]
        rows.append({"bytes": len(data), "digest": blake3(data).hexdigest(), "streams": listed})
    return rows


def build(
    members: Mapping[str, Any],
    chunks: Sequence[Sequence[Stream]],
    *,
    magic: bytes = MAGIC,
    major: int = 1,
    minor: int = 0,
    flags: int = 0,
    body: bytes | None = None,
    text: bytes | None = None,
    codec: int = 0,
    stored: bytes | None = None,
    offset: int | None = None,
    stored_size: int | None = None,
    decoded_size: int | None = None,
    reserved: int = 0,
    digest: bytes | None = None,
    closing: bytes = CLOSING,
) -> bytes:
    """Return a file. `body` are the chunks' bytes, `text` is the manifest, `stored` the same as it lies in the file."""
    codecs = {s.codec for streams in chunks for s in streams} - {"raw"}
    whole = {"chunks": table(chunks), "requires": sorted(codecs), **members}
    text = canonical(whole) if text is None else text
    if stored is None:
        stored = zstandard.ZstdCompressor().compress(text) if codec == 1 else text
    start = struct.pack("<8sHHI", magic, major, minor, flags)
    body = b"".join(s.data for streams in chunks for s in streams) if body is None else body
    trailer = struct.pack(
        "<QQQII",
        len(start + body) if offset is None else offset,
        len(stored) if stored_size is None else stored_size,
        len(text) if decoded_size is None else decoded_size,
        codec,
        reserved,
    )
    digest = blake3(start + stored + trailer).digest() if digest is None else digest
    return start + body + stored + trailer + digest + closing
