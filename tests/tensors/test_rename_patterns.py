"""What a user says of renamed tensors: prefixes, patterns, a function."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import diffpack
from diffpack.errors import UsageError
from diffpack.tensors.rename import Renamer
from diffpack.tensors.rename_patterns import rename_rules, unused

NAMES = ["layers.0.attn.w", "layers.0.attn.b", "layers.1.attn.w", "layers.1.attn.b", "head.w"]
EXPECTED = {
    "layers.0.attn.w": "h.0.w", "layers.0.attn.b": "h.0.b", "layers.1.attn.w": "h.1.w", "layers.1.attn.b": "h.1.b",
    "head.w": "head.w",
}  # fmt: skip
PATTERN = re.compile(r"^layers\.(\d+)\.attn")


@pytest.mark.parametrize(
    "renaming",
    [
        [(PATTERN, r"h.\1")],
        {PATTERN: r"h.\1"},
        lambda name: PATTERN.sub(r"h.\1", name),
        [("layers.0.attn", "h.0"), (re.compile(r"layers\.(\d+)\.attn"), r"h.\1")],
    ],
)
def test_each_way_comes_to_the_same_names(renaming: Any) -> None:
    called = Renamer(rename_rules(renaming, NAMES, "the base"))
    assert {name: called(name) for name in NAMES} == EXPECTED


def test_the_first_that_fits_is_taken() -> None:
    rules = rename_rules([("layers.1.", "x."), (re.compile("attn"), "self"), ("head.", "y.")], NAMES, "the base")
    called = Renamer(rules)
    assert [called(name) for name in NAMES] == [
        "layers.0.self.w", "layers.0.self.b", "x.attn.w", "x.attn.b", "y.w",
    ]  # fmt: skip


def test_prefixes_stay_as_they_are_said() -> None:
    assert rename_rules([("nothing.", "x."), ("head.", "y.")], NAMES, "the base") == (
        ("nothing.", "x."),
        ("head.", "y."),
    )


@pytest.mark.parametrize(
    ("renaming", "said"),
    [
        ([(re.compile("nowhere"), "x")], "'nowhere' fits no tensor of the base"),
        ([(re.compile("a"), r"\2")], r"does not go with the pattern 'a'"),
        ([("a", 1)], "pairs of a prefix or a compiled pattern"),
        ([("a", "b", "c")], "pairs or a function"),
        (["ab"], "pairs or a function"),
        (lambda _: None, "gives None for the tensor"),
    ],
)
def test_what_is_no_renaming_is_refused_by_name(renaming: Any, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        rename_rules(renaming, NAMES, "the base")


def test_extract_takes_them_and_writes_prefixes() -> None:
    rng = np.random.default_rng(0)
    base = {name: rng.standard_normal((4, 4)).astype(np.float32) for name in NAMES}
    tuned = {EXPECTED[name]: array + 1 for name, array in base.items()}
    for renaming in ([(PATTERN, r"h.\1")], lambda name: EXPECTED[name]):
        diff = diffpack.extract(base, tuned, rename=renaming)
        assert diff.manifest.rename == (("layers.0.attn.", "h.0."), ("layers.1.attn.", "h.1."))
        assert all(record.kind == "changed" for record in diff.values())
    with pytest.raises(UsageError, match="gives both"):
        diffpack.extract(base, tuned, rename=lambda _: "one")


def test_a_prefix_that_fits_nothing_is_told() -> None:
    """It may be meant for other models, so it is no error; but mostly it is a slip."""
    told = unused([("layer.", "h."), ("head", "lm"), (re.compile("attn"), "a")], NAMES, "the base")
    assert told == [
        "rename: no tensor of the base begins with layer.: they are called head.w, layers.0.attn.b, layers.0.attn.w"
    ]
    assert unused(str.upper, NAMES, "the base") == []
    base = {name: np.zeros(2, np.float32) for name in NAMES}
    tuned = diffpack.open_checkpoint({name: array + 1 for name, array in base.items()})
    diffpack.extract(base, tuned, rename=[("layer.", "h.")])
    assert "begins with layer.:" in tuned.advice[0]
