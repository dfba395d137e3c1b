"""Two diffs of one base compared: the numbers are those of dense arrays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import diffpack
from diffpack.errors import BaseNeededError, WrongBaseError
from tests.tools.models import model, tune


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.floats(0, 1), st.floats(0, 1), st.sampled_from(["exact", "f32"]), st.booleans())
def test_the_numbers_are_those_of_dense_arrays(seed, one, two, values, given_base):
    base = model()
    models = [tune(base, one, seed), tune(base, two, seed + 1)]
    diffs = [diffpack.extract(base, tuned, values=values) for tuned in models]
    found = diffpack.compare(*diffs, base if given_base else None)
    deltas = [
        np.concatenate(
            [
                (tuned[name].astype(np.float32) - base[name].astype(np.float32)).reshape(-1)
                for name in base
                if base[name].dtype.kind == "f"
            ]
        )
        for tuned in models
    ]
    first, second = (delta != 0 for delta in deltas)
    total = found.total
    assert (total.first, total.second, total.both) == (first.sum(), second.sum(), (first & second).sum())
    assert total.agreeing == (first & second & (np.sign(deltas[0]) == np.sign(deltas[1]))).sum()
    union = (first | second).sum()
    assert total.jaccard == (total.both / union if union else 1)
    if values == "exact" and not given_base:
        assert total.cosine is None
        return
    norms = [np.linalg.norm(delta.astype(np.float64)) for delta in deltas]
    if union:
        assert np.allclose(total.norms, norms, rtol=1e-5)
    if min(norms) > 0:
        assert np.isclose(total.cosine, np.dot(*deltas) / np.prod(norms), rtol=1e-4, atol=1e-6)


def test_a_diff_compared_with_itself_and_its_opposite():
    base = {"w": np.random.default_rng(0).standard_normal(500).astype(np.float32)}
    change = np.where(np.arange(500) % 3 == 0, 0.5, 0).astype(np.float32)
    up, down = (diffpack.extract(base, {"w": base["w"] + sign * change}, values="f32") for sign in (1, -1))
    same, opposite = diffpack.compare(up, up).total, diffpack.compare(up, down).total
    assert (same.jaccard, same.sign_agreement) == (1, 1)
    assert (opposite.jaccard, opposite.sign_agreement) == (1, 0)
    assert np.isclose(same.cosine, 1)
    assert np.isclose(opposite.cosine, -1)


def test_tensors_of_one_diff_and_of_two_shapes():
    base = model()
    one, two = tune(base, 0.1, 1), tune(base, 0.1, 2)
    one["embed"] = np.concatenate([one["embed"], one["embed"][:2]])
    two["encoder.0.bias"] = base["encoder.0.bias"]
    found = diffpack.compare(diffpack.extract(base, one), diffpack.extract(base, two))
    assert found.mismatched == ("embed",)
    overlaps = {item.name: item.overlap for item in found.tensors}
    assert overlaps["embed"] is None
    assert overlaps["encoder.0.bias"].second == 0


def test_integers_count_but_have_no_norm():
    base = {"n": np.arange(6)}
    first, second = base["n"].copy(), base["n"].copy()
    first[:3] += 1
    second[2:5] -= 1
    total = diffpack.compare(diffpack.extract(base, {"n": first}), diffpack.extract(base, {"n": second}), base).total
    assert (total.first, total.second, total.both, total.agreeing, total.cosine) == (3, 3, 1, 0, None)


def test_refusals():
    base, other = model(), tune(model(), 0.5)
    diff = diffpack.extract(base, tune(base))
    with pytest.raises(WrongBaseError, match="not a diff of the base"):
        diffpack.compare(diff, diffpack.extract(other, tune(other)))
    with pytest.raises(WrongBaseError):
        diffpack.compare(diff, diff, other)
    small = diffpack.extract(base, tune(base, 0.3), positions="levels", profile="smallest")
    with pytest.raises(BaseNeededError):
        diffpack.compare(small, small)
    assert diffpack.compare(small, small, base).total.jaccard == 1


def test_changes_that_are_no_finite_numbers_have_signs_alone():
    base = {"w": np.zeros(10, np.float32), "v": np.zeros(10, np.float32)}
    first = {"w": np.where(np.arange(10) < 3, np.inf, 0).astype(np.float32), "v": np.ones(10, np.float32)}
    second = {"w": np.where(np.arange(10) < 5, 1, 0).astype(np.float32), "v": np.ones(10, np.float32)}
    found = diffpack.compare(diffpack.extract(base, first), diffpack.extract(base, second), base)
    overlaps = {item.name: item.overlap for item in found.tensors}
    assert (overlaps["w"].norms, overlaps["w"].cosine) == (None, None)
    assert (overlaps["w"].first, overlaps["w"].second, overlaps["w"].both, overlaps["w"].agreeing) == (3, 5, 3, 3)
    assert overlaps["v"].cosine == pytest.approx(1)


def test_norms_beyond_float64_are_not_told():
    base, tuned = {"w": np.zeros(10), "v": np.zeros(10)}, {"w": np.full(10, 1e200), "v": np.full(10, 1e153)}
    diff = diffpack.extract(base, tuned)
    found = diffpack.compare(diff, diff, base)
    assert {item.name: item.overlap.norms is None for item in found.tensors} == {"w": True, "v": False}


def test_norms_that_are_known_in_part_are_not_those_of_the_whole():
    """A tensor in exact steps and a new one, which needs no base: what is known is told as a part."""
    base = {"w": np.zeros((4, 4), np.float32), "n": np.arange(4)}
    first, second = (
        {"w": np.full((4, 4), value, np.float32), "head": np.full(8, value, np.float32), "n": base["n"] + 1}
        for value in (1, 2)
    )
    diffs = [diffpack.extract(base, tuned) for tuned in (first, second)]
    found = diffpack.compare(*diffs)
    assert (found.total.norms, found.total.cosine) == (None, None)
    assert found.known.norms == pytest.approx((8**0.5, 2 * 8**0.5))
    assert found.known.cosine == pytest.approx(1)
    assert found.known_share == 8 / 24  # integers have no norm, and no part in it
    whole = diffpack.compare(*diffs, base)
    assert whole.total.norms == pytest.approx((24**0.5, 2 * 24**0.5))
    assert whole.known_share == 1
    nothing = diffpack.compare(*[diffpack.extract(base, base | {"n": base["n"] + 1})] * 2)
    assert nothing.known_share is None
    same = diffpack.extract(base, base)
    assert diffpack.compare(same, same).total.norms == (0, 0)


def test_what_is_not_finite_is_left_out_of_the_whole():
    base = {"w": np.zeros(10, np.float32), "v": np.zeros(10, np.float32)}
    tuned = {"w": np.full(10, np.inf, np.float32), "v": np.ones(10, np.float32)}
    diff = diffpack.extract(base, tuned)
    found = diffpack.compare(diff, diff, base)
    assert found.total.norms is None
    assert found.known_share == 0.5
    assert found.known.norms == pytest.approx((10**0.5, 10**0.5))
