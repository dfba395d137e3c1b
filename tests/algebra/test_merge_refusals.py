"""What cannot be merged is said."""

from __future__ import annotations

import numpy as np
import pytest

import diffpack
from diffpack.errors import UsageError, WrongBaseError
from tests.tools.merging import diffs_of, tuned, zeros
from tests.tools.models import model, tune


def test_diffs_of_different_bases_are_refused():
    other = tune(model(), 0.5)
    diffs = [diffpack.extract(model(), tune(model()), values="f16"), diffpack.extract(other, tune(other), values="f16")]
    with pytest.raises(WrongBaseError, match="not a diff of the base"):
        diffpack.merge(diffs)
    with pytest.raises(WrongBaseError, match="not the base"):
        diffpack.merge(diffs[:1] * 2, base=other)


def test_tensors_the_diffs_disagree_about_are_named():
    base = model()
    shapes, kinds, numbers = (tune(base, 0.1, seed) for seed in (1, 2, 3))
    shapes["encoder.0.weight"] = shapes["encoder.0.weight"][:20]
    kinds["ids"] = kinds["ids"] + 1
    numbers["ids"] = numbers["ids"] + 2
    with pytest.raises(UsageError, match=r"encoder\.0\.weight: the diffs make it"):
        diffpack.merge(diffs_of(base, [shapes, kinds]), base=base)
    with pytest.raises(UsageError, match="ids: I64 tensors are not merged"):
        diffpack.merge(diffs_of(base, [kinds, numbers]), base=base)
    same = diffpack.merge(diffs_of(base, [kinds, kinds]))
    assert np.array_equal(diffpack.load(base, same)["ids"], kinds["ids"])


def test_values_too_large_are_refused():
    base = zeros((4,))
    diffs = diffs_of(base, [{"t0": np.full(4, 40_000, np.float32)}] * 2)
    with pytest.raises(UsageError, match="beyond f16"):
        diffpack.merge(diffs, values="f16")
    with pytest.raises(UsageError, match="beyond float32"):
        diffpack.merge(diffs, scale=1e38)


def test_differences_that_are_not_finite_are_refused():
    base = zeros((4,))
    diffs = diffs_of(base, [{"t0": np.array([0, np.nan, 1, 2], np.float32)}] * 2, values="exact")
    with pytest.raises(UsageError, match="not finite"):
        diffpack.merge(diffs, base=base)


@pytest.mark.parametrize(
    "options",
    [
        {"method": "none"}, {"weights": [1]}, {"weights": [1, float("nan")]}, {"density": 0.5}, {"values": "exact"},
        {"method": "ties", "density": 0}, {"method": "ties", "density": 1.5}, {"profile": "smallest"},
        {"method": "sce", "weights": [1, 2]}, {"method": "dare_ties", "density": 0.5, "rescale": "l1"},
        {"method": "della", "density": 0.5, "epsilon": 0.6}, {"method": "breadcrumbs", "density": 0.5, "gamma": 1},
        {"seed": 1}, {"method": "ties", "density": 0.5, "seed": 1}, {"method": "dare_ties", "seed": 1},
        {"method": "dare_ties", "density": 0.5, "gamma": 0.1}, {"method": "dare_ties", "density": 0.5, "epsilon": 0.1},
        {"method": "breadcrumbs", "gamma": 0.1}, {"method": "breadcrumbs", "density": 0.5, "rescale": "norm"},
    ],
)  # fmt: skip
def test_options_that_do_not_fit_are_refused(options):
    base = zeros((4,))
    diffs = diffs_of(base, [tuned(base, 1, 1), tuned(base, 2, 1)])
    with pytest.raises(UsageError):
        diffpack.merge(diffs, **options)


def test_one_diff_is_given_back_in_its_own_profile_or_not_at_all(tmp_path):
    base = {"w": np.random.default_rng(0).standard_normal((400, 300)).astype(np.float32)}
    changed = {"w": base["w"] + np.random.default_rng(1).normal(0, 1, (400, 300)).astype(np.float32)}
    compact, portable = (diffpack.extract(base, changed, profile=profile) for profile in ("compact", "portable"))
    with pytest.raises(UsageError, match="given back as it is"):
        diffpack.merge([compact], profile="portable")
    diffpack.merge(portable, tmp_path / "m.dpk", profile="portable")
    portable.save(tmp_path / "p.dpk")
    assert (tmp_path / "m.dpk").read_bytes() == (tmp_path / "p.dpk").read_bytes()


def test_no_diffs_are_refused():
    with pytest.raises(UsageError, match="no diff"):
        diffpack.merge([])


def test_take_without_what_it_takes_from_is_refused():
    diff = diffpack.extract(model(), tune(model()), values="f16")
    with pytest.raises(UsageError, match="take leads from patterns of tensor names to diffs"):
        diffpack.merge([diff, diff], take=["encoder*"])
