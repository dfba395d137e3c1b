"""Regular expressions from files answer what `re` answers, and end."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffpack.errors import UsageError
from diffpack.support.safe_regex import compile_pattern

PIECES = [
    "a",
    "b",
    ".",
    r"\.",
    r"\d",
    r"\w",
    "[ab]",
    "[^a]",
    "[a-c.]",
    "1",
    "(a|b1)",
    "(?:ab?)",
    r"\D",
    "^",
    "$",
    r"\b",
]
TEXTS = st.text("ab1._", max_size=8)


COUNTS = ["", "", "", "*", "+", "?", "*?", "{2}", "{1,2}", "{,2}", "{2,}", "{,}"]


@given(
    st.lists(st.tuples(st.sampled_from(PIECES), st.sampled_from(COUNTS)), max_size=6),
    st.sampled_from(["{}", "({})*", "({})|a", "(?={})a*", "(?!{}).*", "(?P<n>{})b?"]),
    TEXTS,
)  # fmt: skip
def test_they_answer_what_re_answers(pieces, frame, text):
    written = frame.replace(
        "{}", "".join(piece + ("" if piece in ("^", "$", r"\b") else count) for piece, count in pieces)
    )
    assert compile_pattern(written).matches(text) == bool(re.fullmatch(written, text))


@pytest.mark.parametrize(
    ("written", "text", "answer"),
    [
        (r"(.*\.)?(layers\.[0-3]\.self_attn\.(q|v)_proj)", "model.layers.2.self_attn.v_proj", True),
        (r"(.*\.)?(layers\.[0-3]\.self_attn\.(q|v)_proj)", "model.layers.12.self_attn.v_proj", False),
        (r"^(?!.*visual).*\.(q_proj|v_proj)$", "model.layers.0.q_proj", True),
        (r"^(?!.*visual).*\.(q_proj|v_proj)$", "visual.layers.0.q_proj", False),
        (r"[\w.-]+", "a_b-c.0", True),
        (r"a{b}", "a{b}", True),
        (r"[]a]+", "a]", True),
    ],
)
def test_what_modules_are_picked_with(written, text, answer):
    assert bool(re.fullmatch(written, text)) == answer
    assert compile_pattern(written).matches(text) == answer


@pytest.mark.parametrize(
    "written", [r"(a+)+", r"(a|a)*", r"(.*a){30}", r"(a*){1000000000}", r"((a?){99}){99}", "(.*)*x"]
)
def test_none_of_them_hangs(written):
    begun = time.perf_counter()
    compile_pattern(written).matches("a" * 60 + "!")
    assert time.perf_counter() - begun < 5


UNKNOWN = ["(", "a)", "[a", "*a", r"(a)\1", "(?i)a", "(?<=a)b", "a**", "a++", r"\q", "[b-a]", "a{2,1}", "\\"]


@pytest.mark.parametrize("written", [*UNKNOWN, "(" * 50 + ")" * 50, "a" * 3000])
def test_what_is_not_known_is_refused(written):
    with pytest.raises(UsageError):
        compile_pattern(written)
