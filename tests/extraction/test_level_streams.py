"""Levels are chosen, and words coded, the same whether all words are gone through or those that change alone."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import diffpack
from diffpack.extraction.encode import level_streams
from diffpack.extraction.encode.level_streams import change_sizes, exact_plans
from diffpack.format.positions import level_costs, split
from diffpack.format.positions.geometry import Geometry
from diffpack.format.positions.level_costs import bit_lengths, costs, sampled
from diffpack.format.positions.levels import Plan
from diffpack.format.values.exact import EXACT
from diffpack.tensors.dtypes import DTYPES, array_words, exponents
from tests.tools.models import bits

SPAN = [((40, 300), 130, 12_000), ((7_000,), 0, 7_000), ((3, 20, 50), 0, 2_970)]


def pair(dtype, density, seed=0):
    """Words of both sides of a span; whole rows and columns of its first record keep still."""
    rng = np.random.default_rng(seed)
    base = (rng.standard_normal(sum(stop - start for _, start, stop in SPAN)) * 0.05).astype(dtype)
    moved = rng.random(base.size) < density
    moved[300:1500] = False
    moved[170 : SPAN[0][2] - 130 : 300] = False
    tuned = np.where(moved, base * np.exp2(rng.normal(0, 1, base.size)).astype(dtype), base).astype(dtype)
    tuned[moved & (rng.random(base.size) < 0.01)] = np.inf
    return base, tuned


def span(name):
    return Geometry.of([(DTYPES[name], *part) for part in SPAN])


@pytest.mark.parametrize("density", [0.0, 0.002, 0.1, 0.9])
@pytest.mark.parametrize(("name", "dtype"), [("F32", np.float32), ("F16", np.float16), ("BF16", ml_dtypes.bfloat16)])
def test_changed_words_alone_give_the_levels_that_all_words_give(name, dtype, density):
    info, geometry = DTYPES[name], span(name)
    reference, tuned = (array_words(side, info) for side in pair(dtype, density))
    steps, own = EXACT.encode(reference, tuned, info), exponents(reference, info)
    places = np.flatnonzero(steps)
    whole = exact_plans(change_sizes(reference, tuned, steps, info), geometry, own)
    sizes = change_sizes(reference[places], tuned[places], steps[places], info)
    few = exact_plans(sizes, geometry, own, places)
    assert len(whole) == len(few)
    for one, other in zip(whole, few, strict=True):
        assert np.array_equal(one.rows, other.rows)
        assert np.array_equal(one.columns, other.columns)
        assert one.slope == other.slope


@pytest.mark.parametrize("most", [1 << 20, 0])
@pytest.mark.parametrize("sample", [1 << 18, 2_000])
def test_plans_cost_what_the_levels_of_their_sampled_words_tell(monkeypatch, sample, most):
    """Each plan alone, its levels laid out for all words, against all plans at once."""
    monkeypatch.setattr(level_costs, "_SAMPLE", sample)
    monkeypatch.setattr(level_costs, "_MOST_CELLS", most)
    info, geometry = DTYPES["BF16"], span("BF16")
    reference, tuned = (array_words(side, info) for side in pair(ml_dtypes.bfloat16, 0.3))
    steps, own = EXACT.encode(reference, tuned, info), exponents(reference, info)
    plans = exact_plans(change_sizes(reference, tuned, steps, info), geometry, own)
    rng = np.random.default_rng(0)
    plans.append(Plan(columns=rng.integers(-9, 9, geometry.columns).astype(np.int8)))
    assert len(plans) == 13
    which = sampled(geometry.words)
    lengths = bit_lengths(steps[which])
    expected = []
    for plan in plans:
        keys = plan.keys(geometry, own)[which].astype(np.int64)
        bits_told, cells = 0.0, 0
        for key in np.unique(keys):
            counts = np.bincount(lengths[keys == key])
            counts = counts[counts > 0]
            bits_told += float((counts * np.log2(counts.sum() / counts)).sum())
            cells += counts.size - 1
        bits_told += cells / (2 * np.log(2))
        changing = min(np.unique(keys[lengths > 0]).size, -(-geometry.words // split.CLASS_WORDS))
        tables = level_costs._CLASS_COST * changing
        tables += level_costs._levels_cost(plan.rows) + level_costs._levels_cost(plan.columns)
        expected.append(which.step * bits_told + tables)
    assert costs(plans, geometry, own, lengths) == pytest.approx(expected, rel=1e-9)


def update(rate):
    """An RL-like update: bfloat16 weights and their float32 masters, each moved by about `rate`."""
    rng = np.random.default_rng(0)
    base, tuned = {}, {}
    for name, shape in {"a": (600, 401), "b": (9_000,), "c": (64, 1000)}.items():
        masters = (rng.standard_normal(shape) * 0.05).astype(np.float32)
        moves = rng.choice([-1, 1], shape) * rate * rng.lognormal(0, 1, shape)
        base[name] = masters.astype(ml_dtypes.bfloat16)
        tuned[name] = (masters + moves.astype(np.float32)).astype(ml_dtypes.bfloat16)
    return base, tuned


@pytest.mark.parametrize("rate", [3e-6, 1e-5, 3e-4])
def test_every_way_gives_the_same_file(tmp_path, monkeypatch, rate):
    base, tuned = update(rate)
    files = []
    for many, walk in ((1 / 8, split._walk), (1 / 8, None), (0.0, split._walk), (1.0, None)):
        monkeypatch.setattr(level_streams, "_MANY", many)
        monkeypatch.setattr(split, "_walk", walk)
        path = tmp_path / f"{len(files)}.dpk"
        diff = diffpack.extract(base, tuned, path, profile="smallest")
        assert "exponent" in diff.contexts("a")
        assert bits(diffpack.load(base, diff)) == bits(tuned)
        files.append(path.read_bytes())
    assert len(set(files)) == 1
