"""Diffs that rename the base's tensors differently meet by the base's names: compared, merged, carried over."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

import diffpack
from diffpack.algebra.shared_names import share_names
from diffpack.errors import BaseNeededError, UsageError
from diffpack.tensors.undo_rename import base_names
from tests.tools.merging import diffs_of
from tests.tools.models import bits, model, tune

BASE = {f"bert.{name}": array for name, array in model().items()}


def plain(tensors, prefix="bert."):
    """The same model saved without its prefix."""
    return {name.removeprefix(prefix): array for name, array in tensors.items()}


def fine_tune(seed=1, density=0.2):
    return tune(BASE, density, seed)


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("values", ["exact", "f32"])
def test_one_fine_tune_saved_in_two_ways_is_alike(values, given):
    tuned = fine_tune()
    diffs = diffs_of(BASE, [tuned, plain(tuned)], values=values)
    assert diffs[0].manifest.rename != diffs[1].manifest.rename
    for order in (diffs, diffs[::-1]):
        found = diffpack.compare(*order, BASE if given else None)
        total = found.total
        assert total.first == total.second == total.both == total.agreeing > 0
        assert total.jaccard == 1
        assert [item.name for item in found.tensors] == list(order[0])
        if given or values == "f32":
            assert total.cosine == pytest.approx(1)
            assert found.known_share == 1


def test_different_fine_tunes_are_compared_as_if_named_alike():
    one, two = fine_tune(1), fine_tune(2)
    expected = diffpack.compare(*diffs_of(BASE, [one, two])).total
    found = diffpack.compare(*diffs_of(BASE, [plain(one), two])).total
    assert (found.first, found.second, found.both, found.agreeing) == (
        expected.first, expected.second, expected.both, expected.agreeing,
    )  # fmt: skip
    assert found.cosine == pytest.approx(expected.cosine)


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("method", ["linear", "ties", "dare_ties"])
def test_a_merge_is_that_of_models_named_alike(method, given):
    one, two = fine_tune(1), fine_tune(2)
    options = {"method": method, "base": BASE if given else None, "density": None if method == "linear" else 0.5}
    alike = diffpack.load(BASE, diffpack.merge(diffs_of(BASE, [one, two]), **options))
    with_prefix = diffpack.merge(diffs_of(BASE, [one, plain(two)]), **options)
    assert bits(diffpack.load(BASE, with_prefix)) == bits(alike)
    assert with_prefix.manifest.rename == ()
    without = diffpack.merge(diffs_of(BASE, [plain(one), two]), **options)
    assert without.manifest.rename == (("bert.", ""),)
    found = diffpack.load(BASE, without)
    assert set(found) == set(plain(BASE))
    if method != "dare_ties":  # which draws by the tensors' names
        assert bits(found) == bits(plain(alike))
    diffpack.verify(without, BASE)


def test_exact_diffs_are_merged_with_the_base():
    one, two = fine_tune(1), fine_tune(2)
    diffs = diffs_of(BASE, [plain(one), two], values="exact")
    with pytest.raises(BaseNeededError):
        diffpack.merge(diffs)
    found = diffpack.load(BASE, diffpack.merge(diffs, base=BASE, method="average"))
    middle = (one["bert.embed"] + two["bert.embed"]) / 2
    assert np.allclose(found["embed"], middle, atol=1e-6)


@pytest.mark.parametrize("given", [True, False])
def test_new_removed_resized_and_tied_tensors(given):
    """A head of each, a removed tensor, a grown vocabulary, a tied decoder: in two namings."""
    both = []
    for seed in (1, 2):
        tuned = fine_tune(seed)
        del tuned["bert.ids"]
        if given:  # what grows is stored exactly, which needs the base
            rows = np.full((2, 16), float(seed), np.float32)
            tuned["bert.embed"] = np.concatenate([tuned["bert.embed"], rows])
        tuned["classifier.weight"] = np.full((2, 3), float(seed), np.float32)
        tuned["cls.decoder"] = tuned["bert.embed"].copy()
        both.append(tuned)
    base = BASE if given else None
    alike = diffpack.merge(diffs_of(BASE, both), base=base, method="average", mix=["classifier"])
    for models in ([both[0], plain(both[1])], [plain(both[0]), both[1]]):
        diffs = diffs_of(BASE, models)
        merged = diffpack.merge(diffs, base=base, method="average", mix=["classifier"])
        found, expected = diffpack.load(BASE, merged), diffpack.load(BASE, alike)
        named = found if not merged.manifest.rename else {
            name if name.startswith(("classifier", "cls")) else f"bert.{name}": array for name, array in found.items()
        }  # fmt: skip
        assert bits(named) == bits(expected)
        assert len(merged.manifest.aliases) == 1
        assert merged.manifest.result.tensors == len(found)
        assert merged.manifest.result.entries == sum(array.size for array in found.values())
        compared = diffpack.compare(*diffs, base)
        assert not compared.mismatched
        assert {item.name for item in compared.tensors} == set(diffs[0])


def test_which_of_two_tied_tensors_is_stored_goes_by_their_names():
    """`bert.embed` comes before `cls.decoder`, `embed` after it: the same tie is told the other way round."""
    base = {"bert.embed": np.zeros((30, 4), np.float32), "cls.decoder": np.zeros((30, 4), np.float32)}
    base["bert.w"] = np.zeros((30, 40), np.float32)
    models = []
    for seed in (1, 2):
        rng = np.random.default_rng(seed)
        embed = rng.standard_normal((30, 4)).astype(np.float32)
        models.append({"bert.embed": embed, "cls.decoder": embed, "bert.w": base["bert.w"] + np.float32(seed)})
    diffs = diffs_of(base, [models[0], plain(models[1])])
    assert diffs[0].manifest.aliases == {"cls.decoder": "bert.embed"}
    assert diffs[1].manifest.aliases == {"embed": "cls.decoder"}
    with pytest.raises(BaseNeededError, match=r"cls\.decoder may be"):
        diffpack.merge(diffs)
    merged = diffpack.merge(diffs, base=base)
    assert merged.manifest.aliases == {"cls.decoder": "bert.embed"}
    found = diffpack.load(base, merged)
    assert np.allclose(found["bert.embed"], models[0]["bert.embed"] + models[1]["bert.embed"], atol=1e-6)
    total = diffpack.compare(*diffs).total
    assert total.both == 120 + 1200


def test_tensors_of_one_diff_alone():
    """What only the second diff touches is found by the base's name, or the base is asked for."""
    one, two = dict(BASE), dict(BASE)
    one["bert.embed"] = BASE["bert.embed"] + 1
    two["bert.scale"] = np.array(2, np.float32)
    diffs = diffs_of(BASE, [one, plain(two)])
    with pytest.raises(BaseNeededError, match=r"scale may be bert\.scale or scale of the base"):
        diffpack.merge(diffs)
    found = diffpack.load(BASE, diffpack.merge(diffs, base=BASE))
    assert bits(found) == bits({**one, "bert.scale": two["bert.scale"]})
    assert bits(diffpack.load(BASE, diffpack.merge(diffs[::-1]))) == bits(plain(found))
    total = diffpack.compare(*diffs).total
    assert (total.first, total.second, total.both) == (1600, 1, 0)


@pytest.mark.parametrize("given", [True, False])
def test_new_tensors_go_by_their_names(given):
    """A rule that fits a new tensor's name is undone where that can mean one thing only."""
    base = {name: array for name, array in model().items() if array.dtype == np.float32}
    pooler, head = np.ones(3, np.float32), np.ones((2, 2), np.float32)
    one = {f"bert.{name}": array for name, array in tune(base, 0.2, 1).items()} | {"bert.pooler": pooler, "head": head}
    two = tune(base, 0.2, 2) | {"pooler": pooler * 3, "head": head * 3, "other": head}
    diffs = diffs_of(base, [one, two])
    assert diffs[0].manifest.rename == (("", "bert."),)
    merged = diffpack.merge(diffs, base=base if given else None, mix=["*"])
    found = diffpack.load(base, merged)
    assert set(found) == {*one, "other"}
    assert np.allclose(found["bert.pooler"], 2)
    assert np.allclose(found["head"], 2)
    back = diffpack.merge(diffs[::-1], base=base if given else None, mix=["*"])
    assert set(diffpack.load(base, back)) == set(two)
    of_second = {f"bert.{name}" for name in diffs[1] if name in base}
    assert {item.name for item in diffpack.compare(*diffs).tensors} == {*diffs[0], *of_second, "other"}


def test_two_tensors_that_would_get_one_name_are_refused():
    base = {"bert.w": np.zeros((4, 4), np.float32), "bert.v": np.zeros((4, 4), np.float32)}
    one = {"w": np.ones((4, 4), np.float32), "v": np.full((4, 4), 2, np.float32)}
    two = {"bert.w": np.ones((4, 4), np.float32), "bert.v": base["bert.v"], "v": np.ones(7, np.float32)}
    diffs = diffs_of(base, [one, two])
    with pytest.raises(UsageError, match="v is another tensor"):
        diffpack.merge(diffs, base=base)
    with pytest.raises(UsageError, match=r"v: .* cannot be merged"):
        diffpack.merge(diffs)


def test_rules_are_undone():
    assert base_names("w", ()) == ["w"]
    assert base_names("w", (("bert.", ""),)) == ["bert.w", "w"]
    assert base_names("bert.w", (("", "bert."),)) == ["w"]
    assert base_names("head", (("", "bert."),)) == []
    assert base_names("x.w", (("x.y.", "x."), ("x.", "x.y."))) == ["x.y.w"]
    assert base_names("bert.w", (("bert.", ""),)) == ["bert.bert.w"]


def test_three_namings():
    third = {f"m.{name}": array for name, array in plain(fine_tune(3)).items()}
    diffs = diffs_of(BASE, [fine_tune(1), plain(fine_tune(2))])
    diffs.append(diffpack.extract(BASE, third, rename=[("bert.", "m.")], values="f32"))
    for base in (diffpack.open_checkpoint(BASE), None):
        for order in (diffs, diffs[::-1], [diffs[1], diffs[2], diffs[0]]):
            names = share_names(order, base)
            for diff, shared in zip(order, names, strict=True):
                assert sorted(shared.own.values()) == list(diff)
                assert sorted(shared.own) == sorted(names[0].own) == list(order[0])
    merged = diffpack.merge(diffs[::-1])
    assert merged.manifest.rename == (("bert.", "m."),)
    assert set(diffpack.load(BASE, merged)) == set(third)


# Onto another base


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("way", ["without", "with", "as the result"])
def test_a_base_with_another_prefix(way, given):
    """The diff of a base carried to one whose tensors have its prefix no more, or have one."""
    base = plain(BASE) if way == "with" else BASE
    tuned = tune(base, 0.2, 1)
    tuned = plain(tuned) if way == "as the result" else tuned
    onto = tune(BASE if way == "with" else plain(BASE), 0.5, 9)
    diff = diffpack.extract(base, tuned, values="exact" if given else "f32")
    rebased = diffpack.rebase(diff, onto, base=base if given else None)
    assert not rebased.left_out
    assert any("under other names" in note for note in rebased.notes) == (way != "as the result")
    found = diffpack.load(onto, rebased.diff)
    assert set(found) == set(tuned)
    name, own, was = (next(name for name in side if name.endswith("embed")) for side in (tuned, onto, base))
    assert np.allclose(found[name], onto[own] + (tuned[name] - base[was]), atol=1e-6)


def test_a_base_named_as_the_diffs_own_keeps_its_rules():
    tuned = plain(fine_tune())
    onto = tune(BASE, 0.5, 9)
    rebased = diffpack.rebase(diffpack.extract(BASE, tuned), onto, base=BASE)
    assert rebased.diff.manifest.rename == (("bert.", ""),)
    assert rebased.notes == ()


# Composed and undone: a diff's names are those of its own base, so links need no other rules


def test_a_chain_through_both_namings():
    first, second, third = fine_tune(1), plain(tune(fine_tune(1), 0.2, 2)), tune(fine_tune(1), 0.3, 3)
    states = [BASE, first, second, third]
    diffs = [diffpack.extract(one, two) for one, two in pairwise(states)]
    composed = diffpack.compose(diffs, base=BASE)
    assert bits(diffpack.load(BASE, composed)) == bits(third)
    assert bits(diffpack.load(third, diffpack.invert(composed, base=BASE))) == bits(BASE)
    undo = diffpack.invert(diffs[1], base=first)
    assert bits(diffpack.load(second, undo)) == bits(first)


def test_another_base_has_one_prefix_for_another():
    """What `rebase` finds: added, taken away, exchanged."""
    tuned = fine_tune()
    diff = diffpack.extract(BASE, tuned)
    for prefix in ("model.", "bert.encoder.", ""):
        onto = {prefix + name: array for name, array in plain(BASE).items()}
        done = diffpack.rebase(diff, onto, base=BASE)
        assert not done.left_out
        assert done.diff.exact
        assert done.diff.manifest.rename == ((prefix, "bert."),)
        assert bits(diffpack.load(onto, done.diff)) == bits(tuned)
        alone = diffpack.rebase(diff, onto)
        assert alone.diff.manifest.rename == done.diff.manifest.rename
