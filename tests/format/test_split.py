"""Words in classes: those of the specification, however they are found, and the same bytes whichever way is faster."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diffpack.format.positions import grouped, split
from diffpack.format.positions.bits import Bits
from diffpack.format.positions.geometry import Geometry
from diffpack.format.positions.levels import Plan
from diffpack.format.positions.split import CLASS_WORDS, Split
from diffpack.tensors.dtypes import DTYPES, exponents


@pytest.fixture(autouse=True, params=["compiled", "numpy"])
def way(request, monkeypatch):
    """Every test holds whichever way classes are found."""
    if request.param == "numpy":
        monkeypatch.setattr(split, "_walk", None)
    elif split._walk is None:
        pytest.skip("the walk was not compiled when this was installed")


def as_specified(keys):
    """split(keys), word for word as the specification has it (section 5)."""
    found, opened = [], set()
    for key in sorted(set(keys.tolist())):
        opened |= set(np.flatnonzero(keys == key).tolist())
        if len(opened) >= CLASS_WORDS:
            found.append(opened)
            opened = set()
    if opened:
        if not found:
            found = [opened]
        else:
            found[-1] |= opened
    return [sorted(each) for each in found]


def parts(made):
    order = made.order()
    return [order[start:stop].tolist() for start, stop in zip(made.bounds, made.bounds[1:], strict=False)]


@st.composite
def many_keys(draw):
    """Keys of up to 40,000 words: a few common ones, near or far from one another, and some rare ones."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    dtype = draw(st.sampled_from([np.uint8, np.uint16, np.int16, np.int32]))
    limits = np.iinfo(dtype) if dtype is not np.int32 else np.iinfo(np.int16)
    width = draw(st.sampled_from([1, 3, 20, 256, 60_000]))
    low = draw(st.integers(limits.min, max(limits.min, limits.max - width)))
    common = np.clip(low + rng.integers(0, width, 6), limits.min, limits.max)
    words = draw(st.sampled_from([1, 2, 63, 64, 65, 4095, 4096, 9000, 40_001]))
    keys = rng.choice(common, words)
    rare = rng.random(words) < draw(st.sampled_from([0.0, 0.02, 0.5]))
    keys[rare] = np.clip(low + rng.integers(0, width, int(rare.sum())), limits.min, limits.max)
    spread = draw(st.sampled_from([1, 1, 9])) if dtype is np.int32 else 1  # so that 16 bits do not hold them
    return (keys * spread).astype(dtype)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(many_keys())
def test_classes_are_those_of_the_specification(keys):
    made = Split.by(keys)
    assert parts(made) == as_specified(keys)
    assert made.sizes == [len(each) for each in as_specified(keys)]


def test_many_keys_of_a_byte_are_counted_two_by_two():
    for words in ((1 << 17) + 1, 1 << 18, 300_001):
        keys = np.minimum(np.random.default_rng(words).geometric(0.2, words), 255).astype(np.uint8)
        assert parts(Split.by(keys)) == as_specified(keys)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(-128, 127), st.integers(1, 900)), min_size=1, max_size=60))
def test_runs_of_words_make_the_classes_their_words_make(runs):
    keys, lengths = (np.array(each, np.int64) for each in zip(*runs, strict=True))
    made, expected = Split.by(keys.astype(np.int16), lengths), Split.by(np.repeat(keys, lengths))
    assert parts(made) == parts(expected)
    places = np.flatnonzero(np.arange(made.words) % 7 == 0)
    for ours, theirs in zip(made.ranks(places), expected.ranks(places), strict=True):
        assert ours[0] == theirs[0]
        assert np.array_equal(ours[1], theirs[1])
        assert np.array_equal(ours[2], theirs[2])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(many_keys(), st.integers(0, 2**32), st.sampled_from([0.0, 0.001, 0.1, 1.0]))
def test_a_rank_and_its_word_are_found_both_ways(keys, seed, density):
    made = Split.by(keys)
    places = np.flatnonzero(np.random.default_rng(seed).random(keys.size) < density)
    members = parts(made)
    seen = []
    for index, which, ranks in made.ranks(places):
        assert np.array(members[index])[ranks].tolist() == places[which].tolist()
        seen += which.tolist()
    found = [(index, ranks) for index, _, ranks in made.ranks(places)]
    for selected, (_, which, _) in zip(made.select(found), made.ranks(places), strict=True):
        assert np.array_equal(selected, places[which])
    assert sorted(seen) == list(range(places.size))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 700), st.integers(0, 2**32), st.sampled_from([0.0, 0.03, 0.5, 0.97, 1.0]))
def test_every_set_bit_has_its_rank(size, seed, density):
    mask = np.random.default_rng(seed).random(size) < density
    bits, places = Bits.of(mask), np.flatnonzero(mask)
    assert np.array_equal(bits.select(np.arange(places.size)), places)
    assert np.array_equal(bits.ranks(np.arange(size)), np.cumsum(mask) - mask)


@pytest.mark.parametrize("density", [0.0, 0.001, 0.03, 0.5, 1.0])
@pytest.mark.parametrize("made", ["rows", "exponents", "both"])
def test_looking_changes_up_and_sorting_all_words_give_the_same_bytes(monkeypatch, made, density):
    rng = np.random.default_rng(0)
    shape = (300, 301)
    geometry = Geometry.of([(DTYPES["BF16"], shape, 5, 90_000), (DTYPES["BF16"], (70,), 0, 70)])
    words = rng.integers(0, 1 << 16, geometry.words).astype(np.uint16)
    own = exponents(words, DTYPES["BF16"])
    rows = rng.integers(-5, 5, geometry.rows).astype(np.int8)
    plan = {"rows": Plan(rows), "exponents": Plan(slope=1), "both": Plan(rows, slope=2)}[made]
    numbers = np.where(rng.random(words.size) < density, rng.integers(1, 9, words.size), 0).astype(np.int16)
    numbers[own > 200] = 0  # classes that do not change at all
    results = []
    for few, walk in product((True, False), {split._walk, None}):
        monkeypatch.setattr(Split, "few", lambda self, changes, classes, few=few: few)
        monkeypatch.setattr(split, "_walk", walk)
        classes = plan.split(geometry, own)
        kinds, streams = grouped.encode_all(classes, numbers)
        back = np.zeros_like(numbers)
        classes.fill(back, list(grouped.decode(kinds, streams, classes, "here")))
        assert np.array_equal(back, numbers)
        results.append((kinds, [(stream.dtype, stream.tobytes()) for stream in streams]))
    assert all(result == results[0] for result in results)
    places = np.flatnonzero(numbers)
    kinds, streams = grouped.encode(plan.split(geometry, own), places, numbers[places])
    assert (kinds, [(stream.dtype, stream.tobytes()) for stream in streams]) == results[0]
