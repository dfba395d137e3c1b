"""Merging tensors that are not just changed: integers, new, grown, removed, tied and renamed ones."""

from __future__ import annotations

import numpy as np
import pytest

import diffpack
from diffpack.errors import BaseNeededError
from tests.tools.merging import diffs_of, zeros
from tests.tools.models import bits, model, tune


def test_integers_and_new_tensors_of_one_diff_are_taken_over():
    base = model()
    one, two = tune(base, 0.2, 1), tune(base, 0.2, 2)
    one["ids"] = one["ids"][::-1].copy()
    one["head"] = np.full((3, 4), 1 / 3, np.float32)
    two["scores"] = np.arange(4, dtype=np.int32)
    diffs = diffs_of(base, [one, two])
    merged = diffpack.merge(diffs, weights=[0.25, 0.25])
    found = diffpack.load(base, merged)
    assert bits({name: found[name] for name in ("ids", "head")}) == bits({name: one[name] for name in ("ids", "head")})
    assert np.array_equal(found["scores"], two["scores"])
    sealed = diffpack.merge(diffs, weights=[0.25, 0.25], base=base)
    assert sealed.manifest.result == merged.manifest.result.__replace__(fingerprint=sealed.manifest.result.fingerprint)


def test_new_tensors_of_several_diffs_are_averaged_if_that_is_asked_for():
    base = zeros((4,))
    models = [base | {"head": np.full(5, value, np.float32)} for value in (1, 4)] + [base]
    found = diffpack.load(base, diffpack.merge(diffs_of(base, models), method="ties", weights=[1, 2, 5], mix=["head"]))
    assert np.allclose(found["head"], 3)


def test_a_grown_vocabulary():
    base = model()
    models = []
    for seed in (1, 2):
        models.append(tune(base, 0.1, seed))
        models[-1]["embed"] = np.concatenate([models[-1]["embed"], np.full((2, 16), float(seed), np.float32)])
    third = tune(base, 0.1, 3) | {"embed": base["embed"]}
    merged = diffpack.merge(diffs_of(base, [*models, third]), method="average", base=base)
    assert np.allclose(diffpack.load(base, merged)["embed"][100:], 1.5)


def test_tensors_are_removed_and_tied_if_they_are_in_every_diff():
    base = model() | {"pooler": np.ones(7, np.float32)}
    models = [tune(base, 0.2, seed) for seed in (1, 2)]
    for at, each in enumerate(models):
        del each["ids"]
        each["lm_head"] = each["embed"].copy()
        if at:
            del each["pooler"]
    merged = diffpack.merge(diffs_of(base, models), base=base)
    assert merged.manifest.removed == ("ids",)
    assert merged.manifest.aliases == {"lm_head": "embed"}
    found = diffpack.load(base, merged)
    assert np.array_equal(found["lm_head"], found["embed"])
    with pytest.raises(BaseNeededError, match="give the base"):
        diffpack.merge(diffs_of(base, models))


def test_a_tensor_tied_in_one_diff_only_is_merged_with_the_base():
    base = model()
    base["lm_head"] = base["embed"] * 2
    one, two = tune(base, 0.2, 1), tune(base, 0.2, 2)
    one["lm_head"] = one["embed"].copy()
    diffs = diffs_of(base, [one, two])
    assert diffs[0].manifest.aliases == {"lm_head": "embed"}
    with pytest.raises(BaseNeededError, match="tied"):
        diffpack.merge(diffs, method="average")
    found = diffpack.load(base, diffpack.merge(diffs, method="average", base=base))
    assert np.allclose(found["lm_head"], (one["lm_head"] + two["lm_head"]) / 2, atol=1e-6)


def test_renamed_bases():
    base = {f"bert.{name}": array for name, array in model().items()}
    models = [tune(model(), 0.2, seed) for seed in (1, 2)]
    diffs = diffs_of(base, models)
    merged = diffpack.merge(diffs, method="average")
    found = diffpack.load(base, merged)
    assert np.allclose(found["embed"], (models[0]["embed"] + models[1]["embed"]) / 2, atol=1e-6)
