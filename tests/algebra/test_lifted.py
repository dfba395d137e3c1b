"""Diffs of fused models are worked on as diffs of a base that has the fused tensors, and stay as small."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import diffpack
from diffpack.errors import UsageError
from tests.tools.fused import changed, dense, fused, model, sparse
from tests.tools.models import Arrays, bits


def of(base: Arrays, tuned: Arrays, **options: Any) -> diffpack.Diff:
    diff = diffpack.extract(base, tuned, **options)
    assert diff.manifest.slices
    return diff


@pytest.mark.parametrize("turned", [False, True])
def test_a_chain_on_fused_tensors_keeps_the_slices(turned: bool) -> None:
    base = model()
    tuned = fused(changed(base, sparse), turned)
    later = changed(tuned, sparse, seed=2)
    first, second = of(base, tuned), diffpack.extract(tuned, later)
    whole = diffpack.compose([first, second], base=base)
    assert whole.manifest.slices == first.manifest.slices
    assert bits(diffpack.load(base, whole)) == bits(later)
    diffpack.verify(whole, base)
    direct = of(base, later)
    assert (whole.nbytes, list(whole)) == (direct.nbytes, list(direct)) or whole.nbytes < 1.1 * direct.nbytes


def test_a_chain_that_takes_a_fused_tensor_away_or_ties_it() -> None:
    base = model()
    tuned = fused(changed(base, sparse))
    name = "layers.1.attn.qkv.weight"
    later = {key: array for key, array in tuned.items() if key != name}
    first = of(base, tuned)
    whole = diffpack.compose([first, diffpack.extract(tuned, later)], base=base)
    assert bits(diffpack.load(base, whole)) == bits(later)
    other = "layers.2.attn.qkv.weight"
    tied = tuned | {name: tuned[other] + np.float32(1), other: tuned[other] + np.float32(1)}
    whole = diffpack.compose([first, diffpack.extract(tuned, tied)], base=base)
    assert bits(diffpack.load(base, whole)) == bits(tied)


def test_other_chains_are_written_by_their_own_names() -> None:
    base = model()
    tuned = fused(changed(base, sparse))
    there, back = of(base, tuned), of(tuned, base)
    assert bits(diffpack.load(base, diffpack.compose([there, back], base=base))) == bits(base)
    renamed = {f"model.{name}": array for name, array in changed(tuned, sparse, seed=3).items()}
    whole = diffpack.compose([there, diffpack.extract(tuned, renamed)], base=base)
    assert bits(diffpack.load(base, whole)) == bits(renamed)


def test_the_undo_of_a_fused_model_gives_its_parts_back() -> None:
    base = model()
    tuned = fused(changed(base, sparse), turned=True)
    undo = diffpack.invert(of(base, tuned), base=base)
    assert bits(diffpack.load(tuned, undo)) == bits(base)


def test_fused_fine_tunes_are_compared_as_the_same_ones_unfused() -> None:
    base = model()
    one, two = changed(base, dense, seed=1), changed(base, dense, seed=2)
    plain = diffpack.compare(diffpack.extract(base, one), diffpack.extract(base, two), base)
    together = diffpack.compare(of(base, fused(one)), of(base, fused(two)), base)
    assert together.total.cosine == pytest.approx(plain.total.cosine)
    assert together.total.both == plain.total.both


@pytest.mark.parametrize("prefix", ["", "model."])
def test_names_that_a_prefix_is_put_before(prefix: str) -> None:
    base = model()
    one, two = (fused(changed(base, sparse, seed=seed)) for seed in (1, 2))
    diffs = [of(base, {prefix + name: array for name, array in tuned.items()}) for tuned in (one, two)]
    assert diffpack.compare(*diffs, base).mismatched == ()


@pytest.mark.parametrize("method", ["task_arithmetic", "linear", "ties"])
def test_fused_fine_tunes_merge_as_the_same_ones_unfused(method: str) -> None:
    base = model()
    one, two = changed(base, dense, seed=1), changed(base, dense, seed=2)
    options: dict[str, Any] = {"method": method, "base": base, "density": 0.5 if method == "ties" else None}
    plain = diffpack.merge([diffpack.extract(base, one), diffpack.extract(base, two)], **options)
    together = diffpack.merge([of(base, fused(one)), of(base, fused(two))], **options)
    assert set(together.manifest.slices or {}) == set(of(base, fused(one)).manifest.slices or {})
    expected, found = fused(diffpack.load(base, plain)), diffpack.load(base, together)
    assert found.keys() == expected.keys()
    if method != "ties":  # which keeps a part of each tensor, and those are larger
        assert bits(found) == bits(expected)
    diffpack.verify(together, base)


def test_a_diff_of_a_fused_model_is_renamed_with_its_slices() -> None:
    base = model()
    tuned = fused(changed(base, sparse), turned=True)
    renamed = diffpack.rename(of(base, tuned), [("layers.", "model.blocks.")], base=base).diff
    expected = {name.replace("layers.", "model.blocks."): array for name, array in tuned.items()}
    assert bits(diffpack.load(base, renamed)) == bits(expected)
    assert renamed.manifest.slices


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("prefix", ["", "model."])
def test_the_change_of_a_fused_model_is_carried_over_as_that_of_its_parts(turned: bool, prefix: str) -> None:
    base = model()
    tuned, onto = changed(base, sparse), changed(base, dense, seed=5)
    plain = diffpack.rebase(diffpack.extract(base, tuned), onto, base=base)
    there = {prefix + name: array for name, array in onto.items()}
    together = diffpack.rebase(of(base, fused(tuned, turned)), there, base=base)
    assert together.diff.manifest.slices
    assert together.left_out == {}
    assert not together.diff.exact
    expected, found = fused(diffpack.load(onto, plain.diff), turned), diffpack.load(there, together.diff)
    assert bits(found) == bits(expected)
    diffpack.verify(together.diff, there)


def test_a_fused_diff_on_its_own_base_again_is_the_same() -> None:
    base = model()
    diff = of(base, fused(changed(base, sparse)))
    rebased = diffpack.rebase(diff, base, base=base).diff
    assert (rebased.exact, rebased.chunks, rebased.manifest.slices) == (True, diff.chunks, diff.manifest.slices)
    assert rebased.manifest.base == diff.manifest.base
    assert rebased.manifest.removed == diff.manifest.removed


@pytest.mark.parametrize("how", ["missing", "other shape"])
def test_what_another_base_has_no_parts_for_stays_as_it_has_it(how: str) -> None:
    base = model()
    tuned, onto = fused(changed(base, sparse)), changed(base, dense, seed=5)
    part, whole = "layers.1.attn.k_proj.weight", "layers.1.attn.qkv.weight"
    lost = onto.pop(part)
    if how == "other shape":
        onto[part] = np.concatenate([lost, lost])
    rebased = diffpack.rebase(of(base, tuned), onto, base=base)
    assert rebased.left_out.keys() == {whole}
    assert part in rebased.left_out[whole]
    found = diffpack.load(onto, rebased.diff)
    parts = [f"layers.1.attn.{name}_proj.weight" for name in "qkv"]
    kept = [name for name in parts if name in onto]
    assert found.keys() == {*tuned, *kept} - {whole}
    assert bits({name: found[name] for name in kept}) == bits({name: onto[name] for name in kept})
    diffpack.verify(rebased.diff, onto)


def test_a_head_made_of_the_embedding_is_carried_over_as_its_own_change() -> None:
    base = model()
    tuned = base | {"head.weight": sparse(base["embed.weight"], np.random.default_rng(3))}
    diff = diffpack.extract(base, tuned)
    assert diff.manifest.copies
    onto = changed(base, dense, seed=5)
    rebased = diffpack.rebase(diff, onto, base=base)
    found = diffpack.load(onto, rebased.diff)["head.weight"]
    change = tuned["head.weight"] - base["embed.weight"]
    assert bits({"head": found}) == bits({"head": onto["embed.weight"] + change})


@pytest.mark.parametrize("back", [False, True])
def test_a_fused_fine_tune_and_one_in_parts_are_not_merged_side_by_side(back: bool) -> None:
    whole = fused(model()) if back else model()
    one = changed(whole, sparse, seed=1)
    two = changed(model(), sparse, seed=2) if back else fused(changed(whole, sparse, seed=2))
    diffs = [diffpack.extract(whole, one), of(whole, two)]
    for given in (diffs, diffs[::-1]):
        with pytest.raises(UsageError, match=r"takes the place of layers\.0.* keeps: merged, .*same form"):
            diffpack.merge(given, base=whole)


def test_a_fused_tensor_that_is_excluded_does_not_hinder_a_merge() -> None:
    base = model()
    diffs = [diffpack.extract(base, changed(base, sparse)), of(base, fused(changed(base, sparse, seed=2)))]
    merged = diffpack.merge(diffs, base=base, exclude=["qkv", "gate_up", "down"])
    assert diffpack.load(base, merged).keys() == base.keys()
