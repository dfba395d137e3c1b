"""Every rule of spec/format.md, broken: what to do to a draft, and the rule its file must be refused by."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import zstandard
from pcodec import ChunkConfig, standalone

from tests.tools import craft
from tests.tools.broken_factors import BROKEN_FACTORS
from tests.tools.broken_files import BROKEN_FILES
from tests.tools.craft import Stream, stream
from tests.tools.drafts import SCHEMA, Draft

GAPS, VALUES = Draft().chunks[0]
CARD = Draft().chunks[5][0]


def zstd_frame(data: bytes, **options: Any) -> bytes:
    return zstandard.ZstdCompressor(**options).compress(data)


def coded(data: bytes, codec: str, like: Stream = VALUES) -> Stream:
    return Stream(codec, like.dtype, like.length, data)


def pco(values: list[int], dtype: str) -> bytes:
    return bytes(standalone.simple_compress(craft.numbers(dtype, values), ChunkConfig(enable_8_bit=True)))


def text_of(draft: Draft, change: Callable[[str], str] = str) -> bytes:
    return change(craft.canonical(draft.m).decode()).encode()


def drop(draft: Draft, *path: Any) -> Draft:
    *way, last = path
    place = draft.m
    for step in way:
        place = place[step]
    del place[last]
    return draft


def without(draft: Draft, name: str) -> Draft:
    return drop(draft, name).give(text=text_of(draft))


def rows(draft: Draft, **change: Any) -> Draft:
    """Change the description of the first chunk."""
    draft.m["chunks"][0] |= change
    return draft


def row(draft: Draft, *stream_row: Any) -> Draft:
    """Change the description of the first chunk's first stream."""
    return draft.put("chunks", 0, "streams", 0, list(stream_row))


def spare(draft: Draft, change: Callable[[Draft], Any]) -> Draft:
    change(draft)
    return draft


def reordered(draft: Draft) -> Draft:
    draft.chunks[3], draft.chunks[2] = draft.chunks[2], draft.chunks[3]
    return draft.put("chunks", craft.table(draft.chunks))


def one_more(draft: Draft) -> Draft:
    draft.chunks.append([stream("u8", [1])])
    return draft.put("chunks", craft.table(draft.chunks))


def one_fewer(draft: Draft) -> Draft:
    draft.chunks.pop()
    return draft.put("chunks", craft.table(draft.chunks))


def huge(draft: Draft, shape: list[int], ends: list[int]) -> Draft:
    """A record of any size at all, with no base: in place of the int8 group."""
    group = {"dtype": "U8", "base": None, "positions": "gaps", "values": "exact", "names": ["z"], "resized": {}}
    draft.m["groups"][1] = {**group, "shapes": [shape], "ends": ends}
    draft.m["exact"] = False
    del draft.chunks[2]
    return draft.rechunk(2, stream("u64", []), stream("i8", []))


def replace(draft: Draft, group: int, **members: Any) -> Draft:
    draft.m["groups"][group] |= members
    return draft


def copied(draft: Draft, **copies: str) -> Draft:
    return draft.put("requires", ["copies", "pco", "zstd"]).put("copies", copies)


def sliced(draft: Draft, shape: tuple[int, ...], *pieces: tuple[str, bool, int, int], swapped: bool = False) -> Draft:
    assembly = {"shape": list(shape), "swapped": swapped, "pieces": [list(piece) for piece in pieces]}
    return draft.put("requires", ["pco", "slices", "zstd"]).put("slices", {"made": assembly})


def zeros(count: int, dtype: str = "u8") -> Stream:
    return Stream("zstd", dtype, count, zstd_frame(bytes(count * int(dtype[1:]) // 8)))


def int8_values(draft: Draft, values: Stream) -> Draft:
    return draft.rechunk(3, stream("u8", [1, 2]), values)


def lossy_first(draft: Draft, values: str, dtype: str, *numbers: int) -> Draft:
    """Make the first group lossy."""
    draft.m["groups"][0]["values"] = values
    draft.m["exact"] = False
    draft.rechunk(1, stream("u8", []), stream(dtype, []))
    return draft.rechunk(0, stream("u8", [0] * len(numbers)), stream(dtype, numbers))


F32_MAX, F32_INF, F32_NAN = 0x7F7FFFFF, 0x7F800000, 0x7FC00000

BROKEN: list[tuple[str, str, Callable[[Draft], Draft]]] = [
    ("F1", "other magic", lambda d: d.give(magic=b"\x89PNG\r\n\x1a\n")),
    ("F1", "other closing magic", lambda d: d.give(closing=bytes(8))),
    ("F2", "major version 2", lambda d: d.give(major=2)),
    ("F2", "major version 0", lambda d: d.give(major=0)),
    ("F3", "flags", lambda d: d.give(flags=1)),
    ("F3", "reserved", lambda d: d.give(reserved=1)),
    ("F4", "manifest too short", lambda d: d.give(stored_size=len(text_of(d)) - 1)),
    ("F4", "manifest offset past the end", lambda d: d.give(offset=2**64 - 1)),
    ("F5", "other digest", lambda d: d.give(digest=bytes(32))),
    ("F6", "codec 2", lambda d: d.give(codec=2, stored=text_of(d))),
    ("F6", "raw, of another size", lambda d: d.give(decoded_size=5)),
    ("F6", "zstd, of another size", lambda d: d.give(codec=1, decoded_size=5)),
    ("F6", "no zstd", lambda d: d.give(codec=1, stored=text_of(d))),
    ("F6", "bytes after the frame", lambda d: d.give(codec=1, stored=zstd_frame(text_of(d)) + b"\0")),
    ("F6", "two frames", lambda d: d.give(codec=1, stored=zstd_frame(text_of(d)) + zstd_frame(b""))),
    ("F6", "no content size", lambda d: d.give(codec=1, stored=zstd_frame(text_of(d), write_content_size=False))),
    ("F6", "half a frame", lambda d: d.give(codec=1, stored=zstd_frame(text_of(d))[:-9])),
    ("F7", "bytes before the manifest", lambda d: d.give(body=b"".join(s.data for c in d.chunks for s in c) + b"\0")),
    ("F7", "chunks too large", lambda d: rows(d, bytes=2**62)),
    ("F8", "manifest too large", lambda d: d.give(codec=1, decoded_size=268435457)),
    ("F8", "stream decodes to too much", lambda d: row(d, "pco", "u32", 2**25 + 1, len(GAPS.data))),
    ("F8", "16385 streams", lambda d: rows(d, streams=[*d.m["chunks"][0]["streams"], *[["raw", "u8", 0, 0]] * 16383])),
    ("F8", "name too long", lambda d: d.put("aliases", "x" * 65536, "b")),
    ("F8", "name too long in UTF-8", lambda d: d.put("removed", ["ä" * 32768])),
    ("F8", "65 dimensions", lambda d: huge(d, [1] * 65, [1])),
    ("F8", "tensor too large", lambda d: huge(d, [2**62 + 1], [2**62 + 1])),
    ("F8", "tensor too large to multiply", lambda d: huge(d, [2**62] * 64, [2**62])),
    ("F8", "line too large", lambda d: replace(huge(d, [2**62], [1]), 1, names=["y", "z"], shapes=[[2**62], [1]])),
    ("F8", "too large for any machine", lambda d: huge(d, [2**62], [2**62])),
    ("M1", "white space", lambda d: d.give(text=text_of(d) + b" ")),
    (
        "M1",
        "not sorted",
        lambda d: d.give(text=json.dumps(dict(reversed(d.m.items())), separators=(",", ":")).encode()),
    ),
    ("M1", "a key twice", lambda d: d.give(text=text_of(d, lambda t: t.replace('"exact":', '"exact":false,"exact":')))),
    ("M1", "a fraction", lambda d: d.give(text=text_of(d.put("x", 1.5)))),
    ("M1", "a fraction that is none", lambda d: d.give(text=text_of(d.put("x", 1.0)))),
    ("M1", "an exponent", lambda d: d.give(text=text_of(d.put("x", 77), lambda t: t.replace("77", "1e2")))),
    ("M1", "minus", lambda d: d.put("x", -1)),
    ("M1", "minus zero", lambda d: d.give(text=text_of(d.put("x", 77), lambda t: t.replace("77", "-0")))),
    ("M1", "2^63", lambda d: d.put("x", 2**63)),
    ("M1", "5000 digits", lambda d: d.give(text=text_of(d.put("x", 77), lambda t: t.replace("77", "9" * 5000)))),
    ("M1", "NaN", lambda d: d.put("x", float("nan"))),
    ("M1", "infinity", lambda d: d.put("x", float("inf"))),
    ("M1", "no object", lambda d: d.give(text=b"[]")),
    ("M1", "nothing", lambda d: d.give(text=b"")),
    ("M1", "no UTF-8", lambda d: d.give(text=b'{"\xff":1}')),
    ("M1", "surrogates in UTF-8", lambda d: d.give(text=b'{"\xed\xa0\x80":1}')),
    ("M1", "byte order mark", lambda d: d.give(text=b"\xef\xbb\xbf" + text_of(d))),
    (
        "M1",
        "an escape for nothing",
        lambda d: d.give(text=text_of(d.put("x", "7"), lambda t: t.replace('"7"', '"\\u0037"'))),
    ),
    ("M1", "an escaped slash", lambda d: d.give(text=text_of(d.put("x", "/"), lambda t: t.replace('"/"', '"\\/"')))),
    ("M1", "a long escape", lambda d: d.give(text=text_of(d.put("x", "\n"), lambda t: t.replace("\\n", "\\u000a")))),
    (
        "M1",
        "capital hex",
        lambda d: d.give(text=text_of(d.put("x", "\x1f"), lambda t: t.replace("\\u001f", "\\u001F"))),
    ),
    (
        "M1",
        "a lone surrogate",
        lambda d: d.give(text=text_of(d.put("x", "7"), lambda t: t.replace('"7"', '"\\ud800"'))),
    ),
    ("M1", "deep", lambda d: d.give(text=b'{"a":' + b"[" * 100000 + b"]" * 100000 + b"}")),
    ("M1", "deep and open", lambda d: d.give(text=b"[" * 200000)),
    ("F8", "more values than such a file may have", lambda d: d.give(text=b"[" * 1000000)),
    ("F8", "values in a string", lambda d: d.put("metadata", {"a": "," * 400000})),
    ("F8", "a manifest of zeros", lambda d: d.give(stored=zstd_frame(bytes(3 << 20)), codec=1, decoded_size=3 << 20)),
    ("F8", "more numbers than such a file may have", lambda d: d.rechunk(5, zeros(18_000_000))),
    ("F8", "a larger stream than a span may have", lambda d: d.rechunk(0, zeros(2**22 + 1, "u64"), VALUES)),
    ("M4", "no fingerprint", lambda d: d.put("exact", False).put("result", "fingerprint", None)),
    ("M4", "unsealed with a fingerprint", lambda d: d.put("exact", False).put("requires", ["pco", "unsealed", "zstd"])),
    *[("M2", f"without {name}", lambda d, name=name: without(d, name)) for name in Draft().m],
    *[("M2", f"null {name}", lambda d, name=name: d.put(name, None)) for name in Draft().m if name != "layout"],
    *[
        ("M2", f"group without {k}", lambda d, k=k: drop(d, "groups", 0, k))
        for k in SCHEMA["$defs"]["group"]["required"]
    ],
    *[
        ("M2", f"layout without {k}", lambda d, k=k: drop(d, "layout", k))
        for k in SCHEMA["$defs"]["layout"]["required"]
    ],
    *[
        ("M2", f"file without {k}", lambda d, k=k: drop(d, "files", 0, k))
        for k in ("name", "bytes", "digest", "stored")
    ],
    *[("M2", f"chunk without {k}", lambda d, k=k: drop(d, "chunks", 0, k)) for k in ("bytes", "digest", "streams")],
    ("M2", "true for 1", lambda d: d.put("base", "tensors", True)),
    ("M2", "1 for true", lambda d: d.put("exact", 1)),
    ("M2", "capital hex digits", lambda d: d.put("base", "fingerprint", d.m["base"]["fingerprint"].upper())),
    ("M2", "a digest and a new line", lambda d: d.put("layout", "digest", d.m["layout"]["digest"] + "\n")),
    ("M2", "a short digest", lambda d: d.put("layout", "digest", "ab")),
    ("M2", "a list of digests", lambda d: d.put("groups", 0, "base_digests", ["0" * 32] * 2)),
    ("M2", "a digest that is not hex", lambda d: d.put("groups", 0, "base_digests", "x" * 64)),
    ("M2", "null digests", lambda d: d.put("groups", 0, "base_digests", None)),
    ("M2", "a stream of three", lambda d: row(d, "raw", "u8", 0)),
    ("M2", "a stream of five", lambda d: row(d, "raw", "u8", 0, 0, 0)),
    ("M2", "a codec that is a number", lambda d: row(d, 0, "u8", 0, 0)),
    ("M2", "positions that are no text", lambda d: d.put("groups", 0, "positions", 1)),
    ("M2", "a shape that is a number", lambda d: d.put("groups", 0, "shapes", [4, 6])),
    ("M2", "metadata that is no text", lambda d: d.put("metadata", "x", 1)),
    ("M2", "a rename of three", lambda d: d.put("rename", [["a", "b", "c"]])),
    ("M2", "requires not sorted", lambda d: d.put("requires", ["zstd", "pco"])),
    ("M2", "removed twice", lambda d: d.put("removed", ["gone", "gone"])),
    ("M3", "unknown feature", lambda d: d.put("requires", ["pco", "quantum", "zstd"])),
    ("M3", "unknown feature with unknown types", lambda d: d.put("requires", ["new"]).put("groups", {})),
    ("M3", "codec not required", lambda d: d.put("requires", ["zstd"])),
    ("C1", "streams shorter than the chunk", lambda d: d.put("chunks", 5, "streams", 0, 3, len(CARD.data) - 1)),
    ("C1", "streams longer than the chunk", lambda d: d.put("chunks", 5, "streams", 0, 3, 2**62)),
    ("C7", "no streams", lambda d: rows(d, streams=[])),
    ("C7", "nothing at all", lambda d: d.rechunk(0)),
    ("C2", "other bytes", lambda d: d.give(body=bytes(sum(len(s.data) for c in d.chunks for s in c)))),
    ("C2", "other digest", lambda d: rows(d, digest="0" * 64)),
    ("C3", "float stream", lambda d: row(d, "pco", "f32", GAPS.length, len(GAPS.data))),
    ("C3", "unknown codec", lambda d: row(d, "lzma", "u32", GAPS.length, len(GAPS.data))),
    ("C4", "raw too short", lambda d: d.rechunk(0, GAPS, coded(bytes(3), "raw"))),
    ("C4", "raw too long", lambda d: d.rechunk(0, GAPS, coded(bytes(9), "raw"))),
    ("C4", "no zstd", lambda d: d.rechunk(0, GAPS, coded(b"x" * 20, "zstd"))),
    ("C4", "zstd of another size", lambda d: d.rechunk(0, GAPS, coded(zstd_frame(bytes(3)), "zstd"))),
    (
        "C4",
        "zstd without size",
        lambda d: d.rechunk(0, GAPS, coded(zstd_frame(bytes(4), write_content_size=False), "zstd")),
    ),
    ("C4", "zstd and more", lambda d: d.rechunk(0, GAPS, coded(zstd_frame(bytes(4)) + b"\0", "zstd"))),
    ("C4", "zstd bomb", lambda d: d.rechunk(0, GAPS, coded(zstd_frame(bytes(1 << 24)), "zstd"))),
    ("C4", "no pco", lambda d: d.rechunk(0, GAPS, coded(b"x" * 20, "pco"))),
    ("C4", "empty pco", lambda d: d.rechunk(0, GAPS, coded(b"", "pco"))),
    ("C4", "pco of fewer", lambda d: d.rechunk(0, stream("u8", [0, 0]), Stream("pco", "i32", 2, pco([1], "i32")))),
    ("C4", "pco of more", lambda d: d.rechunk(0, GAPS, coded(pco([1, 2], "i32"), "pco"))),
    ("C4", "pco of another dtype", lambda d: d.rechunk(0, GAPS, coded(pco([1], "u32"), "pco"))),
    ("C4", "pco and more", lambda d: d.rechunk(0, GAPS, coded(pco([1], "i32") + b"\0", "pco"))),
    ("C4", "pco cut short", lambda d: d.rechunk(0, GAPS, coded(pco([1], "i32")[:-1], "pco"))),
    ("C5", "empty pco stream", lambda d: d.rechunk(1, stream("u8", []), Stream("pco", "i32", 0, pco([], "i32")))),
    ("C5", "empty stream with bytes", lambda d: d.rechunk(1, stream("u8", []), Stream("raw", "i32", 0, b"\0"))),
    ("C6", "a chunk too many", one_more),
    ("C6", "a chunk too few", one_fewer),
    ("G1", "names not sorted", lambda d: replace(d, 0, names=["new.w", "b"])),
    ("G1", "a name twice in a group", lambda d: replace(d, 0, names=["b", "b"])),
    ("G1", "a name in two groups", lambda d: replace(d, 1, names=["b"])),
    ("G1", "a name that is an alias", lambda d: d.put("aliases", {"h": "b"})),
    ("G1", "a name that is removed", lambda d: d.put("removed", ["gone", "h"])),
    ("G1", "an alias that is removed", lambda d: d.put("removed", ["gone", "tied"])),
    ("G2", "fewer names", lambda d: replace(d, 0, names=["b"])),
    ("G2", "fewer shapes", lambda d: replace(d, 0, shapes=[[10]])),
    ("G2", "fewer base digests", lambda d: replace(d, 0, base_digests="0" * 32)),
    ("G2", "more result digests", lambda d: replace(d, 0, result_digests="0" * 96)),
    ("G2", "a digest too short", lambda d: replace(d, 0, result_digests="0" * 63)),
    ("G2", "no records", lambda d: replace(d, 0, names=[], shapes=[], ends=[], base_digests="", result_digests="")),
    ("G2", "unknown positions", lambda d: d.put("groups", 0, "positions", "bitmap")),
    ("G2", "unknown values", lambda d: d.put("groups", 0, "values", "int4")),
    ("G2", "no base digests", lambda d: drop(d, "groups", 0, "base_digests")),
    ("G2", "base digests without base", lambda d: replace(d, 0, base=None)),
    ("G2", "unknown dtype", lambda d: replace(d, 0, dtype="F128", base="F128")),
    ("G2", "unknown base dtype", lambda d: replace(d, 0, base="float32")),
    ("G3", "ends fall", lambda d: replace(d, 0, ends=[11, 10])),
    ("G3", "ends stay", lambda d: replace(d, 0, ends=[10, 10])),
    ("G3", "an empty first span", lambda d: replace(d, 0, ends=[0, 10])),
    ("G3", "ends before the line's", lambda d: replace(d, 0, ends=[3, 9])),
    ("G3", "no ends", lambda d: replace(d, 0, ends=[])),
    ("G4", "integers to floats", lambda d: replace(d, 0, base="I32")),
    ("G4", "float8 to float32", lambda d: replace(d, 0, base="F8_E4M3")),
    ("G5", "lossy integers", lambda d: replace(d, 0, dtype="I32", base="I32", values="f32")),
    ("G5", "lossy complex", lambda d: replace(d, 0, dtype="C64", base="C64", values="f32")),
    ("G6", "other dimensions", lambda d: replace(d, 0, resized={"b": [2, 2]})),
    ("G6", "same shape", lambda d: replace(d, 0, resized={"b": [4]})),
    ("G6", "no record", lambda d: replace(d, 0, resized={"h": [4]})),
    ("G6", "no dimension", lambda d: replace(d, 0, shapes=[[], [9]], resized={"b": []})),
    ("G6", "no base", lambda d: replace(drop(d, "groups", 0, "base_digests"), 0, base=None, resized={"b": [5]})),
    ("G6", "part of a byte", lambda d: replace(d, 0, dtype="F4", base="F4", shapes=[[8], [12]], resized={"b": [9]})),
    ("G8", "copies, which are not required", lambda d: d.put("copies", {"x": "b"})),
    ("G8", "copies are required, and absent", lambda d: d.put("requires", ["copies", "pco", "zstd"])),
    ("G8", "no copies", lambda d: copied(d)),
    ("G8", "a copy that is removed", lambda d: copied(d, gone="b")),
    ("G8", "a copy that is an alias", lambda d: copied(d, tied="b")),
    ("G9", "slices are required, and absent", lambda d: d.put("requires", ["pco", "slices", "zstd"])),
    (
        "G9",
        "slices, which are not required",
        lambda d: sliced(d, (1,), ("b", False, 0, 1)).put("requires", ["pco", "zstd"]),
    ),
    ("G9", "no slices", lambda d: sliced(d, (1,)).put("slices", {})),
    ("G9", "an assembly without slices", lambda d: sliced(d, (0,))),
    ("G9", "a slice without entries", lambda d: sliced(d, (1,), ("b", False, 0, 1), ("b", False, 0, 0))),
    ("G9", "more entries than the shape has", lambda d: sliced(d, (1,), ("b", False, 0, 2))),
    ("G9", "a vector with two dimensions exchanged", lambda d: sliced(d, (1,), ("b", False, 0, 1), swapped=True)),
    ("G7", "exact without digests", lambda d: drop(d.put("exact", True), "groups", 0, "result_digests")),
    ("P1", "a position at the end of its span", lambda d: d.rechunk(0, stream("u8", [3]), VALUES)),
    ("P1", "a sum that overflows", lambda d: d.rechunk(0, stream("u64", [2**64 - 1] * 2), stream("i32", [1, 1]))),
    ("P1", "a sum that comes round", lambda d: d.rechunk(0, stream("u64", [1, 2**64 - 2]), stream("i32", [1, 1]))),
    ("P1", "one overflow", lambda d: d.rechunk(0, stream("u64", [2**64 - 1]), VALUES)),
    ("P1", "more gaps than values", lambda d: d.rechunk(0, stream("u8", [0, 0]), VALUES)),
    ("P1", "signed gaps", lambda d: d.rechunk(0, stream("i8", [1]), VALUES)),
    ("P3", "no gaps", lambda d: d.rechunk(0, VALUES)),
    ("P3", "three streams", lambda d: d.rechunk(0, GAPS, VALUES, VALUES)),
    ("P2", "fewer values than words", lambda d: replace(d, 0, positions="all").rechunk(0, stream("i32", [1, 2]))),
    ("P2", "two streams", lambda d: replace(d, 0, positions="all").rechunk(0, *[stream("i32", [1, 2, 3])] * 2)),
    ("V1", "steps too narrow", lambda d: d.rechunk(0, GAPS, stream("i16", [1]))),
    ("V1", "steps without sign", lambda d: d.rechunk(0, GAPS, stream("u32", [1]))),
    ("V1", "int8 values too wide", lambda d: int8_values(d, stream("i16", [1, 2]))),
    ("V1", "-128", lambda d: int8_values(d, stream("i8", [1, -128]))),
    ("V1", "f32 values of 16 bits", lambda d: lossy_first(d, "f32", "i16", 1)),
    ("V1", "f16 values of 32 bits", lambda d: lossy_first(d, "f16", "i32", 1)),
    ("V2", "a step of 0", lambda d: d.rechunk(0, GAPS, stream("i32", [0]))),
    ("V3", "infinity", lambda d: lossy_first(d, "f32", "i32", 1, F32_INF)),
    ("V3", "minus infinity", lambda d: lossy_first(d, "f32", "i32", ~F32_INF)),
    ("V3", "NaN", lambda d: lossy_first(d, "f32", "i32", F32_NAN)),
    ("V3", "infinity in f16", lambda d: lossy_first(d, "f16", "i16", 0x7C00)),
    ("V3", "infinity in bf16", lambda d: lossy_first(d, "bf16", "i16", 0x7F80)),
    ("V3", "product", lambda d: d.rechunk(2, stream("u32", [F32_MAX]))),
    ("V4", "negative scale", lambda d: d.rechunk(2, stream("u32", [0xBF800000]))),
    ("V4", "infinite scale", lambda d: d.rechunk(2, stream("u32", [F32_INF]))),
    ("V4", "NaN scale", lambda d: d.rechunk(2, stream("u32", [F32_NAN]))),
    ("V4", "two scales for a record", lambda d: d.rechunk(2, stream("u32", [0, 0]))),
    ("V4", "scales of 64 bits", lambda d: d.rechunk(2, stream("u64", [0]))),
    ("V4", "two streams of scales", lambda d: d.rechunk(2, stream("u32", [0]), stream("u32", []))),
    ("V4", "scales after the span", reordered),
    ("A1", "another base", lambda d: spare(d, lambda d: d.base.update(keep=("I64", (1,), b"\1" + bytes(7))))),
    ("A1", "a base of another shape", lambda d: spare(d, lambda d: d.base.update(keep=("I64", (1, 1), bytes(8))))),
    ("A1", "a base with one more", lambda d: spare(d, lambda d: d.base.update(extra=("I64", (1,), bytes(8))))),
    ("A1", "other base digest", lambda d: d.put("groups", 0, "base_digests", "0" * 64)),
    ("A2", "two tensors of one name", lambda d: d.put("rename", [["old.w", "b"]])),
    ("A2", "a copy of nothing", lambda d: copied(d, x="bb")),
    ("A2", "a copy of a name before renaming", lambda d: copied(d, x="old.w")),
    ("A2", "two renamed tensors of one name", lambda d: d.put("rename", [["old.w", "x"], ["keep", "x"]])),
    ("A3", "removed tensor missing", lambda d: d.put("removed", ["gone", "went"])),
    ("A3", "removed under its old name", lambda d: d.put("rename", [["gone", "went"], ["old.", "new."]])),
    ("A4", "record's tensor missing", lambda d: d.put("rename", [])),
    ("A4", "other dtype", lambda d: replace(d, 0, base="F64")),
    ("A4", "other shape", lambda d: replace(d, 0, shapes=[[2, 2], [2, 3]])),
    ("A4", "other shape before", lambda d: replace(d, 0, resized={"b": [5]})),
    ("A5", "alias of nothing", lambda d: d.put("aliases", {"tied": "bb"})),
    ("A5", "alias of an alias", lambda d: d.put("aliases", {"tied": "b", "too": "tied"})),
    ("A5", "alias of itself", lambda d: d.put("aliases", {"tied": "tied"})),
    ("A5", "alias of a removed tensor", lambda d: d.put("aliases", {"tied": "gone"})),
    (
        "A6",
        "another result",
        lambda d: d.rechunk(0, GAPS, stream("i32", [1])),
    ),
    ("A6", "other fingerprint", lambda d: d.put("result", "fingerprint", "0" * 64)),
    ("A6", "other digest", lambda d: d.put("groups", 0, "result_digests", "0" * 64)),
    *BROKEN_FACTORS,
    *BROKEN_FILES,
]
