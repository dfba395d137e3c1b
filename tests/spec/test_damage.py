"""spec/reader.py: whatever is changed, cut off or put in is refused, and nothing is a crash."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tools import craft
from tests.tools.drafts import SMALL, Draft, reader, refused


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
