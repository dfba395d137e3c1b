"""spec/reader.py: it reads what keeps the rules of spec/format.md, and refuses by name what breaks them."""

from __future__ import annotations

import copy
import importlib.util
import json
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import craft
import jsonschema
import numpy as np
import pytest
import zstandard
from craft import Stream, stream
from hypothesis import given, settings
from hypothesis import strategies as st
from pcodec import ChunkConfig, standalone

SPEC = Path(__file__).parents[1] / "spec"
module = importlib.util.spec_from_file_location("spec_reader", SPEC / "reader.py")
assert module
assert module.loader
reader = importlib.util.module_from_spec(module)
sys.modules["spec_reader"] = reader
module.loader.exec_module(reader)

Tensors = dict[str, craft.Raw]
ALL_DTYPES = sorted(craft.FLOAT_ORDER | craft.INTEGER_ORDER)
LOSSY_DTYPES = ["BF16", "F16", "F32", "F64"]


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


# One small file that has all there is


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


def test_the_small_file_gives_its_result() -> None:
    draft = Draft()
    assert run(SMALL, draft.base) == draft.result
    diff = reader.read(SMALL)
    assert diff.manifest == draft.m
    assert diff.files == {"README.md": b"# A model\n"}
    assert diff.blob == craft.header(draft.result, {"format": "pt"})


def test_the_manifest_may_be_zstd() -> None:
    assert refused(Draft().give(codec=1).build(), Draft().base) == ""


def test_newer_minor_versions_and_unknown_members_and_optional_features_are_read() -> None:
    draft = Draft().give(minor=7).put("later", {"x": [1, None, True, "\u2028\x7f\U0001f600"]})
    draft.put("groups", 0, "later", 1).put("optional", ["magic"])
    assert refused(draft.build(), draft.base) == ""


def test_the_schema_is_a_schema_and_the_small_manifest_fits_it() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    VALIDATOR.validate(Draft().m)


# Every coding, every codec, every dtype


def random_bytes(seed: int, count: int) -> bytes:
    return np.random.default_rng(seed).bytes(count)


@pytest.mark.parametrize("codec", ["raw", "zstd", "pco"])
@pytest.mark.parametrize("positions", ["gaps", "all"])
@pytest.mark.parametrize("dtype", ALL_DTYPES)
def test_exact_values(dtype: str, positions: str, codec: str) -> None:
    shapes = {"a": (3, 5), "b": (), "c": (0, 4), "d": (7,)}
    base: Tensors = {}
    result: Tensors = {}
    for seed, (name, shape) in enumerate(shapes.items()):
        old, new = (random_bytes(s, craft.byte_count(dtype, shape)) for s in (seed, seed + 9))
        base[name] = dtype, shape, old
        result[name] = dtype, shape, bytes(b if i % 3 else a for i, (a, b) in enumerate(zip(old, new, strict=True)))
    line = [step for name in shapes for step in craft.steps(base[name], result[name])]
    ends = [1, len(line) // 2, len(line)]
    group = craft.group(list(shapes), base, result, positions=positions, ends=ends)
    chunks = craft.spans(line, ends, positions, f"i{8 * craft.word_bytes(dtype)}", codec)
    data = craft.build(craft.manifest(base, result, [group]), chunks)
    assert run(data, base) == result
    VALIDATOR.validate(reader.read(data).manifest)


@pytest.mark.parametrize("codec", ["raw", "zstd", "pco"])
@pytest.mark.parametrize("gaps", ["u8", "u16", "u32", "u64"])
def test_gaps_of_every_width(gaps: str, codec: str) -> None:
    base: Tensors = {"x": ("U8", (9,), bytes(9))}
    result: Tensors = {"x": ("U8", (9,), b"\0\1\0\0\2\3\0\0\4")}
    chunk = [stream(gaps, [1, 2, 0, 2], codec), stream("i8", [1, 2, 3, 4], codec)]
    data = craft.build(craft.manifest(base, result, [craft.group(["x"], base, result)]), [chunk])
    assert run(data, base) == result


NAN_BITS = {"F64": 0x7FF8000000000000, "F32": 0x7FC00000, "F16": 0x7E00, "BF16": 0x7FC0}
FIELDS = {"F64": (11, 52), "F32": (8, 23), "F16": (5, 10), "BF16": (8, 7)}  # bits of exponent and fraction


def value_of(bits: int, dtype: str) -> Fraction | str:
    """What a float's bits mean: a number, or "nan", "+inf", "-inf", "-0"."""
    exponent_bits, fraction_bits = FIELDS[dtype]
    sign = bits >> exponent_bits + fraction_bits
    exponent = bits >> fraction_bits & (1 << exponent_bits) - 1
    fraction = bits & (1 << fraction_bits) - 1
    if exponent == (1 << exponent_bits) - 1:
        return "nan" if fraction else "+-"[sign] + "inf"
    mantissa = fraction + (1 << fraction_bits if exponent else 0)
    if sign and not mantissa:
        return "-0"
    power = max(exponent, 1) - ((1 << exponent_bits - 1) - 1) - fraction_bits
    return Fraction(-mantissa if sign else mantissa) * Fraction(2) ** power


def bits_of(value: Fraction | str, dtype: str) -> int:
    """The float nearest to a number, ties to even."""
    exponent_bits, fraction_bits = FIELDS[dtype]
    infinite = (1 << exponent_bits) - 1 << fraction_bits
    minus = 1 << exponent_bits + fraction_bits
    if isinstance(value, str):
        return {"nan": NAN_BITS[dtype], "+inf": infinite, "-inf": minus | infinite, "-0": minus}[value]
    low, high = 0, infinite  # the largest float not above |value|; floats' bits are ordered as they are
    while high - low > 1:
        middle = (low + high) // 2
        number = value_of(middle, dtype)
        assert isinstance(number, Fraction)
        low, high = (middle, high) if number <= abs(value) else (low, middle)
    here = value_of(low, dtype)
    assert isinstance(here, Fraction)
    step = Fraction(2) ** (max(low >> fraction_bits, 1) - ((1 << exponent_bits - 1) - 1) - fraction_bits)
    rest = (abs(value) - here) / step
    low += rest > Fraction(1, 2) or (rest == Fraction(1, 2) and low % 2 == 1)
    return low | (minus if value < 0 else 0)


def raw_floats(dtype: str, bits: list[int]) -> craft.Raw:
    return dtype, (len(bits),), b"".join(x.to_bytes(craft.word_bytes(dtype), "little") for x in bits)


def test_the_rounding_that_the_tests_trust() -> None:
    for value in (0.0, 1.5, -2.75, 1e-45, 3e38, 1 / 3):
        assert bits_of(Fraction(value), "F64") == int.from_bytes(struct.pack("<d", value), "little")
        assert bits_of(Fraction(value), "F32") == int.from_bytes(f32(value), "little")
    assert bits_of(Fraction(70000), "F16") == 0x7C00
    assert bits_of(Fraction(65519), "F16") == 0x7BFF


def near_ties(dtype: str) -> list[int]:
    """Bits of F64 on, just above and just below the ties between neighbours of a narrower dtype."""
    found = []
    for low in (0, 1, 2, 0x3C01, 0x0080, 0x007F, 0x3F80, 0x3F81, 0x7BFE if dtype == "F16" else 0x7F7E):
        a, b = value_of(low, dtype), value_of(low + 1, dtype)
        assert isinstance(a, Fraction)
        assert isinstance(b, Fraction)
        tie = bits_of((a + b) / 2, "F64")
        found += [tie, tie + 1, tie - 1, tie | 1 << 63, (tie + 1) | 1 << 63]
    return found


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(LOSSY_DTYPES), st.sampled_from(LOSSY_DTYPES), st.data())
def test_references_of_another_dtype_are_rounded_once(old: str, new: str, data: Any) -> None:
    width = 8 * craft.word_bytes(old)
    bits = data.draw(st.lists(st.integers(0, 2**width - 1), min_size=1, max_size=20))
    check_conversion(old, new, bits)


@pytest.mark.parametrize("new", ["F16", "BF16"])
def test_f64_is_rounded_once_at_ties(new: str) -> None:
    check_conversion("F64", new, near_ties(new))


def check_conversion(old: str, new: str, bits: list[int]) -> None:
    converted = bits if old == new else [bits_of(value_of(x, old), new) for x in bits]
    base: Tensors = {"x": raw_floats(old, bits)}
    result: Tensors = {"x": raw_floats(new, converted)}
    group = craft.group(["x"], base, result, base=old)
    data = craft.build(
        craft.manifest(base, result, [group]), [[stream("u8", []), stream(f"i{8 * craft.word_bytes(new)}", [])]]
    )
    assert run(data, base) == result


def ordered(bits: int, width: int) -> int:
    """Bits of a float as ordered integer."""
    return bits if bits < 1 << width - 1 else -1 - (bits - (1 << width - 1))


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(LOSSY_DTYPES),
    st.sampled_from(["f32", "f16", "bf16", "int8"]),
    st.sampled_from(["gaps", "all"]),
    st.sampled_from(["raw", "zstd", "pco"]),
    st.data(),
)
def test_lossy_values_are_added_and_rounded(dtype: str, values: str, positions: str, codec: str, data: Any) -> None:
    count = data.draw(st.integers(1, 12))
    width = 8 * craft.word_bytes(dtype)
    old = data.draw(st.lists(st.integers(0, 2**width - 1), min_size=count, max_size=count))
    places = list(range(count)) if positions == "all" else sorted(data.draw(st.sets(st.integers(0, count - 1))))
    cut = data.draw(st.integers(0, count))  # where the second record begins
    wide = "F64" if dtype == "F64" else "F32"
    chunks: list[list[Stream]] = []
    if values == "int8":
        scales = [data.draw(st.floats(0, 2.0**100, width=32)) for _ in range(2)]
        numbers = data.draw(st.lists(st.integers(-127, 127), min_size=len(places), max_size=len(places)))
        deltas = [
            value_of(bits_of(Fraction(v) * Fraction(scales[place >= cut]), "F32"), "F32")
            or ("-0" if v < 0 else Fraction(0))
            for place, v in zip(places, numbers, strict=True)
        ]
        chunks.append([stream("u32", [bits_of(Fraction(scale), "F32") for scale in scales])])
    else:
        kind, small = values.upper(), craft.word_bytes(values.upper()) * 8
        finite = st.integers(0, 2**small - 1).filter(lambda x: value_of(x, kind) not in ("nan", "+inf", "-inf"))
        drawn = data.draw(st.lists(finite, min_size=len(places), max_size=len(places)))
        numbers, deltas = [ordered(x, small) for x in drawn], [value_of(x, kind) for x in drawn]
    new = list(old)
    for place, delta in zip(places, deltas, strict=True):
        reference = value_of(old[place], dtype)
        total = value_of(bits_of(added(reference, delta), wide), wide)
        new[place] = bits_of(total, dtype)
    base: Tensors = {"a": raw_floats(dtype, old[:cut]), "b": raw_floats(dtype, old[cut:])}
    result: Tensors = {"a": raw_floats(dtype, new[:cut]), "b": raw_floats(dtype, new[cut:])}
    signed = {"f32": "i32", "f16": "i16", "bf16": "i16", "int8": "i8"}[values]
    gaps = [place - before - 1 for before, place in zip([-1, *places], places, strict=False)]
    chunks.append(([stream("u16", gaps, codec)] if positions == "gaps" else []) + [stream(signed, numbers, codec)])
    group = craft.group(["a", "b"], base, result, positions=positions, values=values)
    file = craft.build(craft.manifest(base, result, [group], exact=False), chunks)
    assert run(file, base) == result


def added(a: Fraction | str, b: Fraction | str) -> Fraction | str:
    """The exact sum, zeros and infinities with their sign."""
    if "nan" in (a, b) or {a, b} == {"+inf", "-inf"}:
        return "nan"
    for infinity in ("+inf", "-inf"):
        if infinity in (a, b):
            return infinity
    if a == b == "-0":
        return "-0"
    return (Fraction(0) if isinstance(a, str) else a) + (Fraction(0) if isinstance(b, str) else b)


@pytest.mark.parametrize("dtype", ["U8", "F32", "C64", "F64"])
def test_resized_tensors(dtype: str) -> None:
    old_shape, new_shape = (3, 4, 2), (2, 5, 2)
    array = np.frombuffer(random_bytes(1, 24 * 8), np.uint64).reshape(old_shape)
    size = craft.byte_count(dtype, (1,))
    entries = array.astype("<u8").view(np.uint8).reshape(*old_shape, 8)[..., :size]
    grown = np.zeros((*new_shape, size), np.uint8)
    grown[:2, :4] = entries[:2]
    base: Tensors = {"x": (dtype, old_shape, entries.tobytes())}
    result: Tensors = {"x": (dtype, new_shape, grown.tobytes())}
    group = craft.group(["x"], base, result)
    empty = [stream("u8", []), stream(f"i{8 * craft.word_bytes(dtype)}", [])]
    assert run(craft.build(craft.manifest(base, result, [group]), [empty]), base) == result


def test_new_tensors_replace_those_of_the_base_and_digests_of_a_lossy_diff_may_lack() -> None:
    base: Tensors = {"x": ("F32", (9,), bytes(36)), "y": ("U8", (1,), b"\7")}
    result: Tensors = {"x": ("BF16", (2,), bf16(1, -1)), "y": ("U8", (1,), b"\7"), "z": ("BF16", (0,), b"")}
    group = craft.group(["x", "z"], base, result, base=None, positions="all", result_digests=None)
    chunk = [stream("i16", [0x3F80, ~0x3F80], "pco")]
    assert run(craft.build(craft.manifest(base, result, [group], exact=False), [chunk]), base) == result


def test_a_file_may_change_nothing() -> None:
    base: Tensors = {"x": ("F32", (1,), f32(1))}
    assert run(craft.build(craft.manifest(base, base, []), []), base) == base


def test_the_worked_example() -> None:
    page = (SPEC / "example.md").read_text()
    data = bytes.fromhex("".join(re.findall(r"^[0-9a-f]{8}  ((?:[0-9a-f]{2} )+)", page, re.MULTILINE)))
    base: Tensors = {"w": ("F32", (8,), f32(0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5))}
    assert run(data, base) == {"w": ("F32", (8,), f32(0, 0.5, 1.0000001, 1.5, 2, 2.5, 3, 3.4999998))}


def test_a_group_with_an_empty_line_has_no_spans() -> None:
    base: Tensors = {"x": ("F32", (0, 3), b"")}
    group = craft.group(["x"], base, base, values="int8")
    assert run(craft.build(craft.manifest(base, base, [group]), [[stream("u32", [0])]]), base) == base


def test_layout_of_a_folder() -> None:
    draft = Draft()
    names = sorted(draft.result)
    one, two = ({name: draft.result[name] for name in part} for part in (names[:2], names[2:]))
    headers, index = [craft.header(one), craft.header(two)], b'{"weight_map":{}}'
    blob = b"".join(headers) + index
    draft.put("layout", "files", [["1.safetensors", len(headers[0])], ["2.safetensors", len(headers[1])]])
    draft.put("layout", "index", ["model.safetensors.index.json", len(index)]).put("layout", "folder", True)
    draft.put("layout", "digest", craft.digest16(blob)).put("layout", "sha256", ["0" * 64] * 3)
    assert refused(draft.rechunk(4, stream("u8", blob, "zstd")).build(), draft.base) == ""
    VALIDATOR.validate(draft.m)


# Every rule, broken

GAPS, VALUES = Draft().chunks[0]
BLOB = Draft().chunks[4][0].data
CARD = Draft().chunks[5][0]


def zstd_frame(data: bytes, **options: Any) -> bytes:
    return zstandard.ZstdCompressor(**options).compress(data)


def coded(data: bytes, codec: str, like: Stream = VALUES) -> Stream:
    return Stream(codec, like.dtype, like.length, data)


def pco(values: list[int], dtype: str) -> bytes:
    return bytes(standalone.simple_compress(craft.numbers(dtype, values), ChunkConfig(enable_8_bit=True)))


def text_of(draft: Draft, change: Callable[[str], str] = str) -> bytes:
    return change(craft.canonical(draft.m).decode()).encode()


def blob_of(draft: Draft, blob: bytes, **layout: Any) -> Draft:
    """Store other headers, described as they are."""
    draft.m["layout"] |= {"digest": craft.digest16(blob), "files": [["", len(blob)]], **layout}
    return draft.rechunk(4, stream("u8", blob))


def header_with(**entries: Any) -> bytes:
    return json.dumps(json.loads(BLOB) | entries).encode()


def entry(dtype: str, shape: list[int], start: int, stop: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


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
    ("M1", "deep and open", lambda d: d.give(text=b"[" * 1000000)),
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
    ("C1", "no streams", lambda d: rows(d, streams=[])),
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
    ("G7", "exact without digests", lambda d: drop(d.put("exact", True), "groups", 0, "result_digests")),
    ("P1", "a position at the end of its span", lambda d: d.rechunk(0, stream("u8", [3]), VALUES)),
    ("P1", "a sum that overflows", lambda d: d.rechunk(0, stream("u64", [2**64 - 1] * 2), stream("i32", [1, 1]))),
    ("P1", "a sum that comes round", lambda d: d.rechunk(0, stream("u64", [1, 2**64 - 2]), stream("i32", [1, 1]))),
    ("P1", "one overflow", lambda d: d.rechunk(0, stream("u64", [2**64 - 1]), VALUES)),
    ("P1", "more gaps than values", lambda d: d.rechunk(0, stream("u8", [0, 0]), VALUES)),
    ("P1", "signed gaps", lambda d: d.rechunk(0, stream("i8", [1]), VALUES)),
    ("P1", "no gaps", lambda d: d.rechunk(0, VALUES)),
    ("P1", "three streams", lambda d: d.rechunk(0, GAPS, VALUES, VALUES)),
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
    *[
        ("L1", f"side file {name!r}", lambda d, name=name: d.put("files", 1, "name", name))
        for name in ["", ".", "..", ".git", "a/b", "a\\b", "C:x", "a\0", "a\n", "a\x7f", "ä" * 128, "readme.MD"]
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
        lambda d: blob_of(d, BLOB * 2, folder=True, files=[["a", len(BLOB)], ["b", len(BLOB)]]),
    ),
    ("L3", "other size", lambda d: d.put("files", 0, "bytes", 11)),
    ("L3", "other digest", lambda d: d.put("files", 0, "digest", "0" * 32)),
    ("L3", "two streams", lambda d: d.rechunk(5, CARD, stream("u8", []))),
]


@pytest.mark.parametrize(("rule", "change"), [pytest.param(r, c, id=f"{r}-{what}") for r, what, c in BROKEN])
def test_a_broken_rule_is_named(rule: str, change: Callable[[Draft], Draft]) -> None:
    draft = change(Draft())
    assert refused(draft.build(), draft.base) == rule


def test_every_rule_is_broken() -> None:
    rules = set(re.findall(r"^- \[([A-Z]\d+)\]|\[(A\d)\]", (SPEC / "format.md").read_text(), re.MULTILINE))
    fixtures = {"K1", "K2", "K3", "R1", "R2", "R3", "R4", "W1", "W2", "W3"}  # cases in fixtures/ break them
    assert {a or b for a, b in rules} - fixtures == {rule for rule, _, _ in BROKEN}


def test_a_file_shorter_than_the_least() -> None:
    for size in (0, 8, 16, 87):
        assert refused((craft.MAGIC + bytes(80))[: max(size - 8, 0)] + craft.CLOSING[:size], {}) == "F1"


def test_what_a_newer_file_needs_is_named() -> None:
    with pytest.raises(reader.Unsupported, match="quantum") as caught:
        reader.read(Draft().put("requires", ["pco", "quantum", "zstd"]).build())
    assert caught.value.rule == "M3"
    with pytest.raises(reader.Unsupported, match="version 3") as caught:
        reader.read(Draft().give(major=3).build())
    assert caught.value.rule == "F2"
    with pytest.raises(reader.Invalid) as plain:
        reader.read(Draft().put("requires", []).build())
    assert type(plain.value) is reader.Invalid


def test_pco_of_two_chunks_is_read_whole() -> None:
    """pcodec stops where the room ends: a file that goes on there must not pass."""
    one = pco(list(range(256)), "i32")
    start = one.index(b"\x03\xff\0\0")  # dtype and count of its chunk
    two = one[:start] + one[start:-1] * 2 + b"\0"
    base: Tensors = {"x": ("U32", (512,), bytes(2048))}
    result: Tensors = {"x": ("U32", (512,), np.array([*range(256)] * 2, "<u4").tobytes())}
    group = craft.group(["x"], base, result, positions="all")
    assert run(craft.build(craft.manifest(base, result, [group]), [[Stream("pco", "i32", 512, two)]]), base) == result
    base = {"x": ("U32", (256,), bytes(1024))}
    result = {"x": ("U32", (256,), np.arange(256, dtype="<u4").tobytes())}
    group = craft.group(["x"], base, result, positions="all")
    data = craft.build(craft.manifest(base, result, [group]), [[Stream("pco", "i32", 256, two)]])
    assert refused(data, base) == "C4"


def schema_says(draft: Draft) -> bool:
    return bool(VALIDATOR.is_valid(draft.m))


@pytest.mark.parametrize(
    ("rule", "change"), [pytest.param(r, c, id=f"{r}-{what}") for r, what, c in BROKEN if r != "M1"]
)
def test_the_schema_refuses_what_breaks_m2_and_nothing_else(rule: str, change: Callable[[Draft], Draft]) -> None:
    m = change(Draft()).m
    not_sorted = m.get("requires") == ["zstd", "pco"]  # which a schema cannot say
    newer = m.get("requires") == ["new"]  # refused for that, before its types
    assert VALIDATOR.is_valid(m) == (not_sorted or (rule != "M2" and not newer))


# Properties


@given(st.integers(0, len(SMALL) - 1), st.integers(1, 255))
def test_any_changed_byte_is_noticed(index: int, flip: int) -> None:
    data = bytearray(SMALL)
    data[index] ^= flip
    with pytest.raises(reader.Invalid):
        reader.read(bytes(data))


def test_every_changed_byte_is_noticed() -> None:
    for index in range(len(SMALL)):
        for flip in (1, 128, 255):
            data = bytearray(SMALL)
            data[index] ^= flip
            with pytest.raises(reader.Invalid):
                reader.read(bytes(data))


def test_every_truncation_is_noticed() -> None:
    for size in range(len(SMALL)):
        for data in (SMALL[:size], SMALL[len(SMALL) - size :]):
            with pytest.raises(reader.Invalid):
                reader.read(data)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2**63 - 1) | st.integers(0, 6) | st.text(max_size=3) | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


def places(value: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [way, *(place for key, item in items for place in places(item, (*way, key)))]


PLACES = places(Draft().m)[1:]


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(PLACES), JUNK), min_size=1, max_size=2))
def test_no_manifest_is_a_crash(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    draft = Draft()
    m = copy.deepcopy(draft.m)
    for (*way, last), value in changes:
        place: Any = m
        try:
            for step in way:
                place = place[step]
            if isinstance(place, list) == isinstance(last, int):
                place[last] = value
        except (IndexError, KeyError, TypeError):
            continue  # the change before took this place away
    draft.m = m
    refused(draft.build(), draft.base)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 5), st.integers(0, 1), st.binary(max_size=40), st.integers(0, 5), st.booleans())
def test_no_stream_is_a_crash(chunk: int, which: int, data: bytes, length: int, insert: bool) -> None:
    draft = Draft()
    streams = draft.chunks[chunk]
    old = streams[which % len(streams)]
    data = old.data[: len(data)] + data + old.data[2 * len(data) :] if insert else data
    streams[which % len(streams)] = old._replace(data=data, length=length)
    refused(draft.put("chunks", craft.table(draft.chunks)).build(), draft.base)


# The program


def start(*arguments: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SPEC / "reader.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_the_program_gives_the_file_back_byte_for_byte(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    draft = Draft()
    blob_of(draft, craft.header(draft.result, metadata))
    (tmp_path / "a.dpk").write_bytes(draft.build())
    (tmp_path / "base").write_bytes(craft.safetensors(draft.base))
    done = start(tmp_path / "a.dpk", tmp_path / "base", tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, "")
    assert draft.m["base"]["fingerprint"] in done.stdout
    assert (tmp_path / "out").read_bytes() == craft.safetensors(draft.result, metadata)


def test_the_program_uses_the_bases_header_or_its_own(tmp_path: Path) -> None:
    base: Tensors = {"a": ("U8", (2,), b"\1\2"), "c": ("F4", (3,), b"\1\2"), "": ("F32", (), f32(1))}
    result: Tensors = {**base, "a": ("U8", (2,), b"\1\3")}
    blob = craft.header(base, {"by": "a test"})
    layout = {
        "files": [["", len(blob)]],
        "index": None,
        "folder": False,
        "stored": False,
        "digest": craft.digest16(blob),
    }
    (tmp_path / "base").write_bytes(craft.safetensors(base, {"by": "a test"}))
    for name, member in (("with", layout), ("without", None)):
        members = craft.manifest(base, result, [craft.group(["a"], base, result)], layout=member)
        data = craft.build(members, [[stream("u8", [1]), stream("i8", [1])]])
        (tmp_path / "a.dpk").write_bytes(data)
        assert start(tmp_path / "a.dpk", tmp_path / "base", tmp_path / name).stderr == ""
    assert (tmp_path / "with").read_bytes() == craft.safetensors(result, {"by": "a test"})
    assert reader.load_safetensors(str(tmp_path / "without"))[1] == result


def test_the_program_names_the_rule(tmp_path: Path) -> None:
    (tmp_path / "a.dpk").write_bytes(SMALL[:-1])
    done = start(tmp_path / "a.dpk")
    assert done.returncode == 1
    assert done.stderr.startswith("invalid: [F1] ")
    (tmp_path / "a.dpk").write_bytes(SMALL)
    for base in (b"", b"\xff" * 9, craft.safetensors(Draft().base)[:-1], craft.safetensors(Draft().result)):
        (tmp_path / "base").write_bytes(base)
        done = start(tmp_path / "a.dpk", tmp_path / "base", tmp_path / "out")
        assert done.stderr.startswith("invalid: [A1] ")
        assert not (tmp_path / "out").exists()
