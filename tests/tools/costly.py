"""Small diffs that ask for much: every list of a manifest as long as the limits allow, and every stream as large.

Their digests fit, and most keep all rules. `SIZE` is about what each file has; the compressed ones are far smaller.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import count, takewhile
from typing import Any

import numpy as np
import zstandard

from diffpack.format import limits
from tests.tools import craft
from tests.tools.craft import Stream, stream

SIZE = 1_000_000
OLD: craft.Tensors = {"a": ("F32", (4,), bytes(16))}
ZERO = "0" * 64
EMPTY = ["raw", "u8", 0, 0]


def numbered(start: str, nbytes: int, each: int) -> list[str]:
    """Sorted names that differ, as many as have so many bytes in a list whose items take `each` beside the name."""
    return [f"{start}{at:06}" for at in range(nbytes // (len(start) + 6 + each))]


def manifest(**members: Any) -> dict[str, Any]:
    return craft.manifest(OLD, OLD, [], **members)


def group(**members: Any) -> dict[str, Any]:
    return {
        "dtype": "F32", "base": None, "positions": "gaps", "values": "f32", "names": ["z"], "shapes": [[4]],
        "resized": {}, "ends": [4], **members,
    }  # fmt: skip


def zeros(dtype: str, length: int, byte: int = 0) -> Stream:
    """A stream of zeros in very few bytes; or of the number that a byte stands for, in i8 and u8."""
    nbytes = length * int(dtype[1:]) // 8
    return Stream("zstd", dtype, length, zstandard.ZstdCompressor(level=1).compress(bytes([byte]) * nbytes))


Members = tuple[dict[str, Any], list[list[Stream]]]
"""A manifest, and its chunks."""


def ignored(item: Any, each: int) -> Callable[[int], Members]:
    """A member that no reader knows, full of one item of so many bytes (with its comma)."""
    return lambda nbytes: (manifest(zz=[item] * (nbytes // each)), [])


def chunk_rows(streams: int) -> Callable[[int], Members]:
    row = {"bytes": 0, "digest": ZERO, "streams": [EMPTY] * streams}
    each = len(craft.canonical(row)) + 1
    return lambda nbytes: (manifest(chunks=[row] * (nbytes // each)), [])


def spans(nbytes: int) -> Members:
    """Spans of one word, each in a chunk of its own."""
    most = nbytes // 120
    row = {"bytes": 0, "digest": ZERO, "streams": [EMPTY, ["raw", "i32", 0, 0]]}
    one = group(shapes=[[most]], ends=list(range(1, most + 1)))
    return craft.manifest(OLD, OLD, [one], chunks=[row] * most), []


def records(nbytes: int) -> Members:
    """Tensors of one entry, without digests."""
    names = numbered("", nbytes, 7)
    one = group(names=names, shapes=[[1]] * len(names), ends=[len(names)])
    return craft.manifest(OLD, OLD, [one]), [[stream("u8", []), stream("i32", [])]]


def small_groups(nbytes: int) -> Members:
    """A group for each tensor."""
    groups = [group(names=[name], shapes=[[1]], ends=[1]) for name in numbered("", nbytes, 240)]
    return craft.manifest(OLD, OLD, groups), [[stream("u8", []), stream("i32", [])]] * len(groups)


def aliases(nbytes: int) -> Members:
    return manifest(aliases=dict.fromkeys(numbered("", nbytes, 8), "a")), []


def copies(nbytes: int) -> Members:
    return manifest(copies=dict.fromkeys(numbered("", nbytes, 8), "a"), requires=["copies"]), []


def slices(nbytes: int) -> Members:
    one = {"shape": [4], "swapped": False, "pieces": [["a", False, 0, 4]]}
    return manifest(slices=dict.fromkeys(numbered("", nbytes, 80), one), requires=["slices"]), []


def pieces(nbytes: int) -> Members:
    """One tensor of very many slices."""
    most = nbytes // 18
    one = {"shape": [most], "swapped": False, "pieces": [["a", False, 0, 1]] * most}
    return manifest(slices={"b": one}, requires=["slices"]), []


def files(nbytes: int) -> Members:
    one = {"bytes": 1, "digest": ZERO[:32], "stored": False}
    return manifest(files=[{"name": name, **one} for name in numbered("", nbytes, 85)]), []


def resized(nbytes: int) -> Members:
    names = numbered("", nbytes, 110)
    one = group(
        base="F32", base_digests=ZERO[:32] * len(names), names=names, shapes=[[2]] * len(names), ends=[2 * len(names)],
        resized={name: [1] for name in names},
    )  # fmt: skip
    return craft.manifest(OLD, OLD, [one]), [[stream("u8", []), stream("i32", [])]]


def dimensions(nbytes: int) -> Members:
    """A tensor of very many dimensions."""
    return craft.manifest(OLD, OLD, [group(shapes=[[1] * (nbytes // 2)])]), [[stream("u8", []), stream("i32", [])]]


def huge_dimensions(nbytes: int) -> Members:
    """Tensors of 64 dimensions of 2^63 - 1."""
    names = numbered("", nbytes, 64 * 20)
    return craft.manifest(OLD, OLD, [group(names=names, shapes=[[2**63 - 1] * 64] * len(names))]), []


def feature(nbytes: int) -> Members:
    return manifest(requires=["x" * nbytes]), []


def features(nbytes: int) -> Members:
    return manifest(requires=numbered("", nbytes, 3)), []


def structure(nbytes: int) -> Members:
    """What an HDF5 file holds: groups inside groups."""
    groups = {name: {"kind": "group"} for name in numbered("", nbytes, 25)}
    return manifest(structure={"digest": ZERO[:32], "content": {"items": groups}}, optional=["structure"]), []


LISTS: dict[str, Callable[[int], Members]] = {
    "ignored lists": ignored([], 3),
    "ignored objects": ignored({}, 3),
    "ignored objects of objects": ignored({"a": {}}, 9),
    "ignored texts": ignored("", 3),
    "ignored numbers": ignored(1234567, 8),
    "rename rules": lambda nbytes: (manifest(rename=[[name, "b"] for name in numbered("", nbytes, 9)]), []),
    "rename rules of all lengths": lambda nbytes: (
        manifest(rename=[["x" * at, "b"] for at in takewhile(lambda at: at * (at + 18) < 2 * nbytes, count(1))]), []
    ),
    "chunks": chunk_rows(1),
    "chunks of empty streams": chunk_rows(limits.STREAMS_A_CHUNK),
    "spans of one word": spans,
    "records": records,
    "groups": small_groups,
    "removed": lambda nbytes: (manifest(removed=numbered("", nbytes, 3)), []),
    "aliases": aliases,
    "copies": copies,
    "slices": slices,
    "pieces of slices": pieces,
    "side files": files,
    "resized": resized,
    "metadata": lambda nbytes: (manifest(metadata=dict.fromkeys(numbered("", nbytes, 6), "")), []),
    "one long note": lambda nbytes: (manifest(metadata={"a": "x" * nbytes}), []),
    "dimensions": dimensions,
    "huge dimensions": huge_dimensions,
    "a feature's name": feature,
    "features": features,
    "structure": structure,
}  # fmt: skip
"""Manifests of about so many bytes."""


def gaps(dtype: str) -> Members:
    """As many gaps of 0 as may be, in a tensor of as many words."""
    most = limits.SPAN_STREAM_BYTES * 8 // int(dtype[1:]) // 4
    one = group(dtype="U8", values="exact", shapes=[[most]], ends=[most], result_digests=ZERO[:32])
    return craft.manifest(OLD, OLD, [one]), [[zeros(dtype, most), zeros("i8", most, 2)]]


def all_numbers(coding: str) -> Members:
    """As many numbers as a file of a megabyte may have, most of whose bytes are a side file's."""
    ballast = np.random.default_rng(0).bytes(SIZE)
    spans_in_all = limits.NUMBERS.most(SIZE) // 2 // (1 << 22)
    ends = [at << 22 for at in range(1, spans_in_all + 1)]
    if coding == "gaps":
        chunk = [zeros("u8", 1 << 22), zeros("i8", 1 << 22, 2)]
    else:
        chunk = [zeros("i8", 1 << 22)]
        ends = [at << 22 for at in range(1, 2 * spans_in_all + 1)]
    one = group(dtype="U8", positions=coding, values="exact", shapes=[[ends[-1]]], ends=ends, result_digests=ZERO[:32])
    file = {"name": "a.txt", "bytes": SIZE, "digest": craft.digest16(ballast), "stored": True}
    return craft.manifest(OLD, OLD, [one], files=[file]), [[*chunk]] * len(ends) + [[stream("u8", ballast)]]


def every_word(values: str, dtype: str, stored: str) -> Members:
    most = min(limits.NUMBERS.free, limits.SPAN_STREAM_BYTES * 8 // int(stored[1:]))
    one = group(dtype=dtype, positions="all", values=values, shapes=[[most]], ends=[most], result_digests=ZERO[:32])
    return craft.manifest(OLD, OLD, [one]), [[zeros(stored, most)]]


def blob() -> Members:
    most = limits.NUMBERS.free
    file = {"name": "a.txt", "bytes": most, "digest": craft.digest16(bytes(most)), "stored": True}
    return manifest(files=[file]), [[zeros("u8", most)]]


def header(item: str) -> Members:
    """A safetensors header, full of one item of JSON."""
    text = f'{{"__metadata__":{{"a":"b"}},"a":[{",".join([item] * (16_000_000 // (len(item) + 1)))}]}}'.encode()
    return _headed(text)


def tensors_in_a_header() -> Members:
    one = '{"dtype":"F32","shape":[],"data_offsets":[0,0]}'
    entries = ",".join(f'"{at}":{one}' for at in range(280_000))
    return _headed(f"{{{entries}}}".encode())


def _headed(text: bytes) -> Members:
    stored = Stream("zstd", "u8", len(text), zstandard.ZstdCompressor(level=3).compress(text))
    layout = {
        "files": [["", len(text)]],
        "index": None,
        "folder": False,
        "stored": True,
        "digest": craft.digest16(text),
    }
    return manifest(layout=layout), [[stored]]


def levels(records_a_span: int, words: int, spans_in_all: int) -> Members:
    """Spans of classes by row, that hold nothing and speak of very many words."""
    rows = 1 << 12
    width = words // rows // records_a_span
    names = numbered("", 13 * records_a_span * spans_in_all, 7)[: records_a_span * spans_in_all]
    one = group(
        positions="levels", values="exact", names=names, shapes=[[rows, width]] * len(names),
        ends=[words * at for at in range(1, spans_in_all + 1)], result_digests=ZERO[:32] * len(names),
        counts=[0] * len(names),
    )  # fmt: skip
    chunk = [
        stream("u8", [0, 0]),
        zeros("i8", rows * records_a_span),
        stream("i8", []),
    ]
    return craft.manifest(OLD, OLD, [one], requires=["levels", "zstd"]), [chunk] * spans_in_all


def rule() -> Members:
    """Entries chosen at random among 2^32."""
    one = group(
        dtype="F32", base="F32", base_digests=ZERO[:32], positions="rule", values="f32", rule="random 1", counts=[4],
        shapes=[[1 << 32]], ends=[1 << 32],
    )  # fmt: skip
    return craft.manifest(OLD, OLD, [one], requires=["rule"]), [[stream("i32", [1, 2, 3, 4])]]


STREAMS: dict[str, Callable[[], Members]] = {
    "gaps in u8": lambda: gaps("u8"),
    "gaps in u64": lambda: gaps("u64"),
    "gaps, as many as a megabyte allows": lambda: all_numbers("gaps"),
    "numbers, as many as a megabyte allows": lambda: all_numbers("all"),
    "a number for each of 2^24 words": lambda: every_word("exact", "U8", "i8"),
    "a number of 64 bits for each": lambda: every_word("exact", "U64", "i64"),
    "a float for each": lambda: every_word("f32", "F32", "i32"),
    "a side file of zeros": blob,
    "a header of lists": lambda: header("[]"),
    "a header of objects": lambda: header("{}"),
    "a header of tensors": tensors_in_a_header,
    "levels of 2^24 words": lambda: levels(1, 1 << 24, 500),
    "levels of many records": lambda: levels(64, 1 << 24, 60),
    "a rule over 2^32 words": rule,
}
"""Chunks that decode to as much as may be."""


def _listed(make: Callable[[int], Members]) -> bytes:
    members, chunks = make(SIZE - 2000)
    return craft.build(members, chunks, body=b"" if not chunks and "chunks" in members else None)


FILES: dict[str, Callable[[], bytes]] = {
    **{name: partial(_listed, make) for name, make in LISTS.items()},
    **{
        f"{name}, compressed": lambda make=make: craft.build(*make(limits.MANIFEST_DECODED.free), codec=1)
        for name, make in LISTS.items()
    },
    **{name: lambda make=make: craft.build(*make(), codec=1) for name, make in STREAMS.items()},
}
"""Every file, by name: lists as they are and compressed, and streams."""
