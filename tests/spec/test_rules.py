"""spec/reader.py and the schema refuse by name what breaks a rule."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import diffpack
from diffpack.errors import CorruptFileError, ResultMismatchError, UnsupportedFormatError, WrongBaseError
from tests.tools import craft
from tests.tools.broken_rules import BROKEN, pco
from tests.tools.craft import Stream
from tests.tools.drafts import SPEC, VALIDATOR, Draft, Tensors, reader, refused, run


@pytest.mark.parametrize(("rule", "change"), [pytest.param(r, c, id=f"{r}-{what}") for r, what, c in BROKEN])
def test_a_broken_rule_is_named(rule: str, change: Callable[[Draft], Draft]) -> None:
    draft = change(Draft())
    assert refused(draft.build(), draft.base) == rule


ANOTHER_FIRST = {
    ("F7", "chunks too large"): "C1", ("F8", "line too large"): "G3", ("M2", "a digest that is not hex"): "G2",
    ("C1", "streams longer than the chunk"): "F8", ("V4", "scales after the span"): "P3", ("C4", "pco and more"): "A6",
}  # fmt: skip
"""What breaks two rules, and the one that the library meets first."""


@pytest.mark.parametrize(
    ("rule", "what", "change"), [pytest.param(r, what, c, id=f"{r}-{what}") for r, what, c in BROKEN]
)
def test_the_library_refuses_it_too(rule: str, what: str, change: Callable[[Draft], Draft], tmp_path: Path) -> None:
    draft = change(Draft())
    raw = craft.header(draft.base, {})
    base = tmp_path / "base.safetensors"
    base.write_bytes(struct.pack("<Q", len(raw)) + raw + b"".join(data for _, _, data in draft.base.values()))
    with pytest.raises((CorruptFileError, UnsupportedFormatError, WrongBaseError, ResultMismatchError)) as found:
        diffpack.verify(draft.build(), base)
    assert f"[{ANOTHER_FIRST.get((rule, what), rule)}]" in str(found.value)


def test_members_a_later_version_may_have_are_ignored() -> None:
    draft = Draft()
    for place in ([], ["base"], ["layout"], ["groups", 0]):
        holder: Any = draft.m
        for step in place:
            holder = holder[step]
        holder |= {"later": None, "error2": {"a": 1}} | ({"name": None} if place != ["base"] else {"errors": None})
    draft.put("groups", 0, "rule", "nonsense").put("groups", 0, "counts", [1])
    assert not refused(draft.build(), draft.base)
    diff = diffpack.open(draft.build())
    assert diffpack.verify(diff).records == len(diff)
    assert diffpack.stats(diff).diffs[0].changed >= sum(record.count for record in diff.values()) > 0


def test_every_rule_is_broken() -> None:
    rules = set(re.findall(r"^- \[([A-Z]\d+)\]|\[(A\d)\]", (SPEC / "format.md").read_text(), re.MULTILINE))
    fixtures = {"K1", "K2", "K3", "L5", "R1", "R2", "R3", "R4", "W1", "W2", "W3"}  # cases in fixtures/ break them
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


@pytest.mark.parametrize(
    ("rule", "change"), [pytest.param(r, c, id=f"{r}-{what}") for r, what, c in BROKEN if r != "M1"]
)
def test_the_schema_refuses_what_breaks_m2_and_nothing_else(rule: str, change: Callable[[Draft], Draft]) -> None:
    m = change(Draft()).m
    not_sorted = m.get("requires") == ["zstd", "pco"]  # which a schema cannot say
    newer = m.get("requires") == ["new"]  # refused for that, before its types
    assert VALIDATOR.is_valid(m) == (not_sorted or (rule != "M2" and not newer))
