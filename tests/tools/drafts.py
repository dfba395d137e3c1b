"""One small file with all there is, in parts that a test may change before it is built; and the reader of the spec."""

from __future__ import annotations

import json
import struct
from typing import Any

import jsonschema

from spec import reader
from tests.tools import ROOT, craft
from tests.tools.craft import Stream, stream

SPEC = ROOT / "spec"

Tensors = dict[str, craft.Raw]


def run(data: bytes, base: Tensors) -> Tensors:
    """Read and apply."""
    tensors = {name: reader.Tensor(*raw) for name, raw in base.items()}
    return {name: tuple(tensor) for name, tensor in reader.apply(reader.read(data), tensors).items()}


def refused(data: bytes, base: Tensors) -> str:
    """The rule that a file breaks, or the empty string."""
    try:
        run(data, base)
    except reader.Invalid as error:
        assert str(error).startswith(f"[{error.rule}] ")  # noqa: PT017  # returned, not expected
        return str(error.rule)
    return ""


def f32(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def bf16(*values: float) -> bytes:
    """Values that bfloat16 holds."""
    return b"".join(struct.pack("<f", value)[2:] for value in values)


class Draft:
    """The parts of a file, before it is built."""

    def __init__(self) -> None:
        self.base: Tensors = {
            "b": ("F32", (4,), f32(1, 2, 3, 4)),
            "gone": ("U8", (2,), b"\1\2"),
            "h": ("BF16", (5,), bf16(1, 2, 3, 4, 5)),
            "keep": ("I64", (1,), bytes(8)),
            "old.w": ("F32", (2, 3), f32(0, -0.0, 1, 2, 3, float("nan"))),
        }
        self.result: Tensors = {
            "b": ("F32", (4,), f32(1, 2.5, 3, 4)),
            "h": ("BF16", (5,), bf16(1, 2.5, 3, 4, 3)),
            "keep": ("I64", (1,), bytes(8)),
            "new.w": ("F32", (2, 3), f32(-0.0, 0, 1, 2, -3, float("inf"))),
            "tied": ("F32", (4,), f32(1, 2.5, 3, 4)),
        }
        renamed = {"b": self.base["b"], "new.w": self.base["old.w"]}
        line = [step for name in ("b", "new.w") for step in craft.steps(renamed[name], self.result[name])]
        first = craft.group(["b", "new.w"], renamed, self.result, ends=[3, 10])
        second = craft.group(["h"], self.base, self.result, values="int8")
        self.chunks = craft.spans(line, [3, 10], "gaps", "i32", "pco")
        self.chunks += [
            [stream("u32", [int.from_bytes(f32(0.25), "little")])],
            [stream("u8", [1, 2], "zstd"), stream("i8", [2, -8])],
        ]
        blob = craft.header(self.result, {"format": "pt"})
        card = b"# A model\n"
        self.chunks += [[stream("u8", blob)], [stream("u8", card, "zstd")]]
        layout = {
            "files": [["", len(blob)]],
            "index": None,
            "folder": False,
            "stored": True,
            "digest": craft.digest16(blob),
        }
        files = [
            {"name": "README.md", "bytes": len(card), "digest": craft.digest16(card), "stored": True},
            {"name": "config.json", "bytes": 7, "digest": "0" * 32, "stored": False},
        ]
        self.m = craft.manifest(
            self.base,
            self.result,
            [first, second],
            aliases={"tied": "b"},
            removed=["gone"],
            rename=[["old.", "new."]],
            layout=layout,
            files=files,
        )
        self.m["chunks"] = craft.table(self.chunks)
        self.m["requires"] = ["pco", "zstd"]
        self.given: dict[str, Any] = {}

    def put(self, *path: Any) -> Draft:
        """Put the last argument at the place in the manifest that the others lead to."""
        *way, last, value = path
        place = self.m
        for step in way:
            place = place[step]
        place[last] = value
        return self

    def rechunk(self, index: int, *streams: Stream) -> Draft:
        """Put other streams into a chunk, with the right sizes and digest."""
        self.chunks[index] = list(streams)
        self.m["chunks"] = craft.table(self.chunks)
        return self

    def give(self, **pieces: Any) -> Draft:
        self.given |= pieces
        return self

    def build(self) -> bytes:
        return craft.build(self.m, self.chunks, **self.given)


SMALL = Draft().build()
SCHEMA = json.loads((SPEC / "manifest.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def blob_of(draft: Draft, blob: bytes, **layout: Any) -> Draft:
    """Store other headers, described as they are."""
    draft.m["layout"] |= {"digest": craft.digest16(blob), "files": [["", len(blob)]], **layout}
    return draft.rechunk(4, stream("u8", blob))
