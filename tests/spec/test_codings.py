"""spec/reader.py: every coding, every codec, every dtype comes out as it went in."""

from __future__ import annotations

import hashlib
import re
import struct
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tools import craft
from tests.tools.craft import Stream, stream
from tests.tools.drafts import SPEC, VALIDATOR, Draft, Tensors, bf16, f32, reader, refused, run

ALL_DTYPES = sorted(craft.FLOAT_ORDER | craft.INTEGER_ORDER)
LOSSY_DTYPES = ["BF16", "F16", "F32", "F64"]


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
    files = [*(craft.safetensors(tensors) for tensors in (one, two)), index]
    sums = [hashlib.sha256(content).hexdigest() for content in files]
    draft.put("layout", "digest", craft.digest16(blob)).put("layout", "sha256", sums)
    assert refused(draft.rechunk(4, stream("u8", blob, "zstd")).build(), draft.base) == ""
    VALIDATOR.validate(draft.m)
    for at in range(3):
        other = [*sums[:at], "0" * 64, *sums[at + 1 :]]
        assert refused(draft.put("layout", "sha256", other).build(), draft.base) == "L7"
