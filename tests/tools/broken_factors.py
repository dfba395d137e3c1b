"""The rules of factors (section 5 of spec/format.md), broken: see `broken_rules`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tests.tools import craft
from tests.tools.craft import Stream, stream
from tests.tools.drafts import Draft

ONE, INFINITY, NAN = 0x3F800000, 0x7F800000, 0x7FC00000
"""Bits of float32 scales."""
SCALING = [stream("u32", [ONE]), stream("u32", [ONE]), stream("u16", [1])]
EXACT_SCALING = [stream("u32", []), *SCALING[1:]]
HEAD, NONE = stream("u8", [0, 2]), stream("i8", [])
LINE = [HEAD, NONE, NONE, stream("i16", [1, 2, 3, 4, 5, 6])]
WORDS = [stream("u8", [0, 0]), NONE, NONE, stream("i8", [0, 0, 0])]


def factored(
    draft: Draft,
    *,
    scaling: Sequence[Stream] = SCALING,
    line: Sequence[Stream] = LINE,
    requires: Sequence[str] = ("grid", "levels", "lowrank"),
    group: dict[str, Any] | None = None,
    **factors: Any,
) -> Draft:
    """Make the second group one whose record of five words is a matrix of one row, with factors of rank 1."""
    own = {"values": "int", "matrices": [[1, 5, [1]]], "ends": [6], **factors}
    draft.m["groups"][1] |= {"positions": "levels", "values": "grid", "factors": own, **(group or {})}
    draft.chunks[2:4] = [list(scaling), list(line), WORDS]
    return draft.put("requires", sorted([*requires, "pco", "zstd"])).put("chunks", craft.table(draft.chunks))


def predicting(draft: Draft, *, scaling: Sequence[Stream] = EXACT_SCALING, **group: Any) -> Draft:
    """Factors that predict what exact values are steps from."""
    factored(draft, scaling=scaling, requires=("levels", "lowrank"), group={"values": "exact", "counts": [0], **group})
    draft.chunks[4] = WORDS[:3]
    return draft.put("chunks", craft.table(draft.chunks))


def scaled(scales: Stream, weights: Stream, **factors: Any) -> Callable[[Draft], Draft]:
    return lambda draft: factored(draft, scaling=[SCALING[0], scales, weights], **factors)


def numbered(dtype: str, *numbers: int, **factors: Any) -> Callable[[Draft], Draft]:
    return lambda draft: factored(draft, line=[HEAD, NONE, NONE, stream(dtype, numbers)], **factors)


HUGE = 0x5F000000  # 2^63, as the ordered integer of a float32
BROKEN_FACTORS: list[tuple[str, str, Callable[[Draft], Draft]]] = [
    ("U1", "factors, which are not required", lambda d: factored(d, requires=("grid", "levels"))),
    ("U1", "factors are required, and absent", lambda d: d.put("requires", ["lowrank", "pco", "zstd"])),
    ("U1", "factors of int8", lambda d: factored(d, values="int8")),
    ("U1", "factors of exact values in gaps", lambda d: predicting(d, positions="gaps")),
    ("U3", "scales of a grid beside exact values", lambda d: predicting(d, scaling=SCALING)),
    ("U2", "no matrices", lambda d: factored(d, matrices=[])),
    ("U2", "a matrix of four words", lambda d: factored(d, matrices=[[1, 4, [1]]])),
    ("U2", "two matrices of five words", lambda d: factored(d, matrices=[[1, 5, [1, 0]]])),
    ("U2", "no rows", lambda d: factored(d, matrices=[[0, 5, [1]]])),
    ("U2", "no ranks", lambda d: factored(d, matrices=[[1, 5, []]])),
    ("U2", "a rank too large", lambda d: factored(d, matrices=[[1, 5, [65536]]], ends=[6 * 65536])),
    ("U2", "ends before the end", lambda d: factored(d, ends=[5])),
    ("U3", "scales of the grid alone", lambda d: factored(d, scaling=SCALING[:1])),
    ("U3", "four streams of scales", lambda d: factored(d, scaling=[*SCALING, NONE])),
    ("U3", "signed scales", scaled(stream("i32", [ONE]), SCALING[2])),
    ("U3", "weights of a byte", scaled(SCALING[1], stream("u8", [1]))),
    ("U3", "two scales for a record", scaled(stream("u32", [ONE, ONE]), SCALING[2])),
    ("U3", "an infinite scale", scaled(stream("u32", [INFINITY]), SCALING[2])),
    ("U3", "a scale that is NaN", scaled(stream("u32", [NAN]), SCALING[2])),
    ("U3", "two weights for a component", scaled(SCALING[1], stream("u16", [1, 1]))),
    ("U3", "weights of floats", scaled(SCALING[1], SCALING[2], values="f16")),
    ("U4", "a slope", lambda d: factored(d, line=[stream("u8", [1, 2]), *LINE[1:]])),
    ("U5", "a product of 2^127", scaled(stream("u32", [0x7E800000]), stream("u16", [2]))),
    ("U5", "floats whose product is 2^127",
     numbered("i32", HUGE, *[HUGE + 0x800000] * 5, values="f32", scaling=[*SCALING[:2], stream("u16", [])])),
    ("U5", "a sum over 2^53", lambda d: factored(
        d, matrices=[[1, 5, [129]]], ends=[774], line=[HEAD, NONE, NONE, stream("i16", [-32768] * 774)],
        scaling=[SCALING[0], stream("u32", [0]), stream("u16", [65535] * 129)])),
]  # fmt: skip
