"""The rules of layouts and side files (section 7 of spec/format.md), broken: see `broken_rules`."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import zstandard

from tests.tools import craft
from tests.tools.craft import Stream, stream
from tests.tools.drafts import Draft, blob_of

BLOB = Draft().chunks[4][0].data
CARD = Draft().chunks[5][0]


def header_with(**entries: Any) -> bytes:
    return json.dumps(json.loads(BLOB) | entries).encode()


def entry(dtype: str, shape: list[int], start: int, stop: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def wide_header(draft: Draft) -> Draft:
    """A layout with a header of one byte more than a safetensors file may have."""
    blob = BLOB + random.Random(0).randbytes(2 << 20)  # so that it is not too much for the file
    blob += b" " * (100_000_001 - len(blob))
    return blob_of(draft, blob).rechunk(4, Stream("zstd", "u8", len(blob), zstandard.ZstdCompressor().compress(blob)))


def indexed(draft: Draft, index: bytes, name: str = "model.safetensors.index.json") -> Draft:
    """A layout of a folder with one file and an index."""
    blob_of(draft, BLOB + index, folder=True, index=[name, len(index)])
    return draft.put("layout", "files", [["model.safetensors", len(BLOB)]])


BROKEN_FILES: list[tuple[str, str, Callable[[Draft], Draft]]] = [
    *[
        ("L1", f"side file {name!r}", lambda d, name=name: d.put("files", 1, "name", name))
        for name in ["", ".", "..", ".git", "a/b", "a\\b", "C:x", "a\0", "a\n", "a\x7f", "ä" * 128, "readme.MD"]
    ],
    *[
        ("L1", f"a name only some systems can have, {name!r}", lambda d, name=name: d.put("files", 1, "name", name))
        for name in [
            "a.",
            "a ",
            " ",
            "a?",
            "a*",
            "a<",
            "a>",
            "a|",
            'a"',
            "con",
            "Aux.json",
            "NUL .txt",
            "com1",
            "LPT\xb2.txt",
            "conin$",
        ]
    ],
    *[
        ("L1", f"a name not all of which is seen, {name!r}", lambda d, name=name: d.put("files", 1, "name", name))
        for name in [
            "a\x9f",
            "a\u200b",
            "a\u202e",
            "a\u2066",
            "\ufeffa",
            "a\u2028",
            "a\xad",
            "a\ufe0f",
            "a\ue000",
            "a\U000e0041",
        ]
    ],
    *[
        (
            "L1",
            f"names some systems take for one, {one!r} and {two!r}",
            lambda d, one=one, two=two: d.put("files", 0, "name", one).put("files", 1, "name", two),
        )
        for one, two in [
            ("\xe9", "e\u0301"),
            ("\xc9", "e\u0301"),
            ("\u212b", "\xe5"),
            ("\xdf", "SS"),
            ("\u03b1\u0345", "\u1fb3"),
        ]
    ],
    ("L1", "one file with a name", lambda d: d.put("layout", "files", 0, 0, "model.safetensors")),
    ("L1", "two files and no folder", lambda d: d.put("layout", "files", [["", len(BLOB)], ["", 0]])),
    ("L1", "an index and no folder", lambda d: d.put("layout", "index", ["index.json", 0])),
    ("L1", "a folder's file without name", lambda d: d.put("layout", "folder", True)),
    ("L1", "file and side file", lambda d: blob_of(d, BLOB, folder=True, files=[["Config.json", len(BLOB)]])),
    ("L2", "other size", lambda d: d.put("layout", "files", 0, 1, len(BLOB) + 1)),
    ("L2", "other digest", lambda d: d.put("layout", "digest", "0" * 32)),
    ("L2", "no sha256 for a file", lambda d: d.put("layout", "sha256", [])),
    ("L2", "two streams", lambda d: d.rechunk(4, stream("u8", BLOB), stream("u8", []))),
    ("L2", "stream of i8", lambda d: d.rechunk(4, Stream("raw", "i8", len(BLOB), BLOB))),
    ("L2", "no JSON", lambda d: blob_of(d, b"{")),
    ("L2", "no object", lambda d: blob_of(d, b"[]")),
    ("L2", "deep JSON", lambda d: blob_of(d, b"[" * 100000)),
    ("L2", "no UTF-8", lambda d: blob_of(d, b'{"\xff":1}')),
    ("L2", "a lone surrogate", lambda d: blob_of(d, header_with(**{"\ud800": entry("U8", [0], 0, 0)}))),
    ("L2", "5000 digits", lambda d: blob_of(d, b'{"a":' + b"9" * 5000 + b"}")),
    ("L2", "no entry", lambda d: blob_of(d, header_with(b=1))),
    ("L2", "entry without shape", lambda d: blob_of(d, header_with(b={"dtype": "F32", "data_offsets": [0, 16]}))),
    ("L2", "true for 1", lambda d: blob_of(d, header_with(keep=entry("I64", [True], 26, 34)))),
    ("L2", "unknown dtype", lambda d: blob_of(d, header_with(b=entry("float32", [4], 0, 16)))),
    ("L2", "negative shape", lambda d: blob_of(d, header_with(b=entry("F32", [-2, -2], 0, 16)))),
    ("L2", "a hole", lambda d: blob_of(d, header_with(z=entry("U8", [1], 75, 76)))),
    ("L2", "an overlap", lambda d: blob_of(d, header_with(h=entry("BF16", [5], 15, 25)))),
    ("L2", "more bytes than entries", lambda d: blob_of(d, header_with(tied=entry("F32", [3], 58, 74)))),
    ("L2", "metadata that is no text", lambda d: blob_of(d, header_with(__metadata__={"a": 1}))),
    (
        "L2",
        "a tensor twice",
        lambda d: blob_of(d, BLOB.rstrip()[:-1] + b',"b":' + json.dumps(json.loads(BLOB)["b"]).encode() + b"}"),
    ),
    ("L2", "a tensor too many", lambda d: blob_of(d, header_with(z=entry("U8", [0], 74, 74)))),
    ("L2", "a tensor too few", lambda d: blob_of(d, craft.header({k: v for k, v in d.result.items() if k != "tied"}))),
    ("L2", "other shape", lambda d: blob_of(d, header_with(tied=entry("F32", [2, 2], 58, 74)))),
    (
        "L2",
        "a tensor in two files",
        lambda d: blob_of(d, BLOB * 2, folder=True, files=[["a.safetensors", len(BLOB)], ["b.safetensors", len(BLOB)]]),
    ),
    *[
        ("L4", f"side file {name!r}", lambda d, name=name: d.put("files", 1, "name", name))
        for name in ["model.safetensors", "Model.BIN", "a.index.json", "adapter_config.json", "modeling.py", "a.SO"]
    ],
    ("L2", "a header too large", lambda d: wide_header(d)),
    *[
        (
            "L2",
            f"an unknown member {what}",
            lambda d, member=member: blob_of(d, BLOB.replace(b'"b": {', b'"b": {' + member)),
        )
        for what, member in {
            "twice": b'"x":1,"x":1,',
            "of no UTF-8": b'"x":"\xff",',
            "of 5000 digits": b'"x":' + b"9" * 5000 + b",",
        }.items()
    ],
    ("L7", "other SHA-256", lambda d: d.put("layout", "sha256", ["0" * 64])),
    ("L6", "a file that is not called safetensors", lambda d: blob_of(d, BLOB, folder=True, files=[["a", len(BLOB)]])),
    *[
        ("L6", f"an index called {name!r}", lambda d, name=name: indexed(d, b'{"weight_map":{}}', name))
        for name in ["modeling.py", "adapter_config.json", "index.json", "a.SAFETENSORS.index.json"]
    ],
    *[
        ("L6", f"an index {what}", lambda d, index=index: indexed(d, index))
        for what, index in {
            "to another file": b'{"weight_map":{"b":"vocab.txt"}}',
            "to no file": b'{"weight_map":{"b":1}}',
            "that is no JSON": b"{",
            "that is no object": b"[]",
            "without a map": b"{}",
            "with NaN": b'{"a":NaN,"weight_map":{}}',
            "with two maps": b'{"weight_map":{},"weight_map":{}}',
            "that is not UTF-8": b'{"weight_map":{},"a":"\xff"}',
        }.items()
    ],
    ("L3", "other size", lambda d: d.put("files", 0, "bytes", 11)),
    ("L3", "other digest", lambda d: d.put("files", 0, "digest", "0" * 32)),
    ("L3", "two streams", lambda d: d.rechunk(5, CARD, stream("u8", []))),
]
