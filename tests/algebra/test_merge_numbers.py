"""Weights, densities and t for a diff, for patterns of tensor names, along the layers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import diffpack
from diffpack.algebra.merge.per_tensor import Layers, PerTensor, matches
from diffpack.errors import BaseNeededError, UsageError
from tests.tools.merging import diffs_of, tuned
from tests.tools.models import bits

NAMES = ("embed", *(f"model.layers.{at}.{part}" for at in range(4) for part in ("attn.q", "mlp.up")), "norm")


def base():
    return {name: np.zeros((6, 10), np.float32) for name in NAMES}


def models(count=2):
    return [tuned(base(), seed, 0.8) for seed in range(1, count + 1)]


def merged(**options):
    found = diffpack.merge(diffs_of(base(), models()), base=base(), **options)
    return diffpack.load(base(), found), found


def test_a_pattern_fits_a_part_of_a_name_or_with_wild_cards_the_whole():
    assert matches("model.layers.3.mlp.up", "mlp")
    assert matches("model.layers.3.mlp.up", "*.mlp.*")
    assert matches("model.layers.3.mlp.up", "model.layers.[0-3].*")
    assert not matches("model.layers.3.mlp.up", "mlp*")
    assert not matches("model.layers.3.mlp.up", "MLP")


def test_weights_by_pattern_are_the_weights_of_the_tensors_they_fit():
    found, diff = merged(weights=[{"layers.1": 3, "mlp": 0.5, "*": 2}, 1])
    first, second = models()
    for name in NAMES:
        weight = 3 if "layers.1" in name else 0.5 if "mlp" in name else 2
        assert np.allclose(found[name], weight * first[name] + second[name], atol=1e-6), name
    assert diff.manifest.recipe["weights"] == "layers.1:3 mlp:0.5 *:2; 1"


def test_a_tensor_that_no_pattern_fits_has_the_default():
    found, _ = merged(weights=[{"mlp": 0.5}, 1])
    first, second = models()
    assert np.allclose(found["norm"], first["norm"] + second["norm"], atol=1e-6)


def test_numbers_along_the_layers_are_interpolated():
    found, _ = merged(weights=[[0, 1, 0.4], 0])
    first = models()[0]
    for at, weight in enumerate((0, 2 / 3, 0.8, 0.4)):  # at depths 0, 1/3, 2/3, 1 of 0, 1, 0.4
        name = f"model.layers.{at}.attn.q"
        assert np.allclose(found[name], weight * first[name], atol=1e-6)
    assert not found["embed"].any()
    assert not found["norm"].any()


def test_the_layers_are_those_of_the_base_not_of_what_changed():
    few = {name: np.where("layers.3" in name, 0, array).astype(np.float32) for name, array in models()[0].items()}
    diffs = diffs_of(base(), [few])
    with pytest.raises(BaseNeededError, match="how many there are"):
        diffpack.merge(diffs, weights=[[0, 1]])
    found = diffpack.load(base(), diffpack.merge(diffs, weights=[[0, 1]], base=base()))
    assert np.allclose(found["model.layers.1.attn.q"], few["model.layers.1.attn.q"] / 3, atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=1, max_size=6), st.integers(1, 9))
def test_a_gradient_begins_and_ends_with_its_ends(numbers, count):
    names = [f"a.{at}.w" for at in range(count)]
    layers, item = Layers(names), PerTensor.of("weight", numbers)
    values = [item.at(name, layers) for name in names]
    if count > 1:
        assert values[0] == pytest.approx(numbers[0])
    assert values[-1] == pytest.approx(numbers[-1])
    assert all(min(numbers) - 1e-9 <= value <= max(numbers) + 1e-9 for value in values)


def test_a_density_for_each_diff_and_pattern():
    found, diff = merged(method="ties", weights=[1, 1], density=[{"mlp": 0, "*": 0.1}, 0.5])
    first, second = models()
    for name in NAMES:
        mine = 0 if "mlp" in name else 6
        single = [
            diffpack.load(base(), diffpack.merge(diffs_of(base(), [own]), method="ties", density=share))[name]
            for own, share in ((first, 0.1), (second, 0.5))
        ]
        assert np.count_nonzero(single[1]) == 30
        changed = np.count_nonzero(found[name])
        assert changed == 30 if mine == 0 else 30 <= changed <= 36
        if mine == 0:
            assert bits({name: found[name]}) == bits({name: single[1]})
    assert diff.manifest.recipe["select"] == "density mlp:0 *:0.1; 0.5"


def test_scale_gamma_and_epsilon_by_pattern():
    found, _ = merged(scale={"mlp": 0.5})
    plain, _ = merged()
    for name in NAMES:
        assert np.allclose(found[name], plain[name] * (0.5 if "mlp" in name else 1), atol=1e-6)
    first, _ = merged(method="breadcrumbs", density=0.3, gamma=[{"mlp": 0.2}, 0.2])
    other, _ = merged(method="breadcrumbs", density=0.3, gamma=0.2)
    assert bits({"": first["model.layers.0.mlp.up"]}) == bits({"": other["model.layers.0.mlp.up"]})
    assert bits({"": first["norm"]}) != bits({"": other["norm"]})
    merged(method="della", density=0.5, epsilon=[0.1, {"mlp": 0.2, "*": 0.05}])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"weights": [{"mpl": 1}, 1]}, "weight: no tensor is called mpl"),
        ({"weights": [{"": 1}, 1]}, "a pattern of names is missing"),
        ({"weights": [{}, 1]}, "a pattern of names is missing"),
        ({"weights": [[], 1]}, "neither a number nor a list"),
        ({"weights": ["much", 1]}, "neither a number nor a list"),
        ({"weights": [[1, float("inf")], 1]}, "neither a number nor a list"),
        ({"weights": [True, 1]}, "neither a number nor a list"),
        ({"weights": [1, 1, 1]}, "3 weights for 2 diffs"),
        ({"weights": "12"}, "2 diffs|neither"),
        ({"method": "ties", "density": [0.5]}, "1 densities for 2 diffs"),
        ({"method": "ties", "density": [0.5, {"mlp": 1.5}]}, "above 0 and at most 1"),
        ({"method": "ties", "density": [0, 0.5]}, "above 0 and at most 1"),
        ({"method": "sce", "weights": [{"mlp": 1}, 2]}, "finds its weights by itself"),
        ({"density": [None, 0.5]}, "keeps every change"),
        ({"method": "slerp"}, "slerp needs t"),
        ({"method": "slerp", "t": 1.5}, "between 0"),
        ({"method": "slerp", "t": {"mlp": 0.5}}, "t: no pattern fits embed"),
        ({"method": "slerp", "t": 0.5, "weights": [1, 1]}, "takes no weights"),
        ({"method": "slerp", "t": 0.5, "normalize": False}, "takes no normalize"),
        ({"method": "slerp", "t": 0.5, "scale": 2}, "takes no scale"),
        ({"method": "slerp", "t": 0.5, "density": 0.5}, "density says nothing"),
        ({"t": 0.5}, "takes no t"),
    ],
)  # fmt: skip
def test_numbers_that_mean_nothing_are_refused(options, said):
    with pytest.raises(UsageError, match=said):
        merged(**options)


# slerp


def near(seed, size):
    rng = np.random.default_rng(seed)
    return {"w": rng.standard_normal((8, 9)) * size}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.floats(0, 1), st.sampled_from([0.01, 0.3, 3.0]))
def test_slerp_is_the_formula_on_whole_weights(seed, t, size):
    start = {name: array.astype(np.float32) for name, array in near(seed, 1).items()}
    pair = [{"w": (start["w"] + near(seed + at, size)["w"]).astype(np.float32)} for at in (1, 2)]
    diffs = [diffpack.extract(start, model) for model in pair]
    found = diffpack.load(start, diffpack.merge(diffs, base=start, method="slerp", t=t))["w"]
    a, b = (model["w"].astype(np.float64).ravel() for model in pair)
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    if abs(cosine) > 0.9995:
        expected = (1 - t) * a + t * b
    else:
        angle = np.arccos(cosine)
        expected = (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)
    assert np.allclose(found.ravel(), expected, rtol=1e-5, atol=1e-6)


def test_slerp_arrives_at_both_ends_and_leaves_what_nobody_changed():
    start = {"w": np.ones((4, 4), np.float32), "kept": np.full(3, 7, np.float32)}
    pair = [start | {"w": np.eye(4, dtype=np.float32) * sign} for sign in (1, 3)]
    diffs = [diffpack.extract(start, model) for model in pair]
    for t, end in ((0, pair[0]), (1, pair[1])):
        merged = diffpack.merge(diffs, base=start, method="slerp", t=t)
        found = diffpack.load(start, merged)
        assert np.allclose(found["w"], end["w"], atol=1e-6)
        assert bits({"": found["kept"]}) == bits({"": start["kept"]})
        assert "kept" not in merged


def test_slerp_needs_two_diffs_the_base_and_a_direction():
    start = {"w": np.array([1, 2, np.inf], np.float32)}
    diffs = diffs_of(start, [{"w": np.array([3, 2, np.inf], np.float32)}] * 3)
    with pytest.raises(UsageError, match="it takes two, not 3"):
        diffpack.merge(diffs, base=start, method="slerp", t=0.5)
    finite = diffs_of({"w": np.ones(3, np.float32)}, [{"w": np.zeros(3, np.float32)}] * 2)
    with pytest.raises(BaseNeededError, match="between whole weights"):
        diffpack.merge(finite, method="slerp", t=0.5)
    with pytest.raises(UsageError, match="not finite"):
        diffpack.merge(diffs[:2], base=start, method="slerp", t=0.5)
