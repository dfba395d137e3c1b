"""Low-rank factors in operations: kept where nothing is coded anew, else what they come to; never something else."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import diffpack
from diffpack.errors import UsageError
from tests.tools.low_rank import few_directions, matrices
from tests.tools.models import Arrays, bits

BASE = matrices()
OPTIONS: list[dict[str, Any]] = [{"budget": "4%"}, {"values": "lowrank", "rank": 2}]


def factored(base: Arrays = BASE, seed: int = 1, **options: Any) -> diffpack.Diff:
    """A diff with factors, and for a budget grid values beside them."""
    tuned = few_directions(base, seed=seed)
    if "budget" in options:
        tuned["body.0.weight"] = tuned["body.0.weight"].copy()
        tuned["body.0.weight"][::40, ::40] += base["body.0.weight"].dtype.type(1)  # along no direction
    diff = diffpack.extract(base, tuned, **options)
    assert ranks(diff)["body.1.weight"] > 0
    return diff


def ranks(diff: diffpack.Diff) -> dict[str, int]:
    return {name: record.rank for name, record in diff.items()}


def added(diff: diffpack.Diff, name: str, onto: Arrays) -> np.ndarray:
    """A tensor with the differences of a record, as they are stored, added in float32 and rounded once."""
    positions, values = diff[name].differences()
    changed = onto[name].reshape(-1).copy()
    changed[positions] = (changed[positions].astype(np.float32) + values).astype(changed.dtype)
    return changed.reshape(onto[name].shape)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_a_rebase_keeps_factors_and_adds_what_they_come_to(options: dict[str, Any], dtype: Any) -> None:
    base = matrices(dtype=dtype)
    diff = factored(base, **options)
    onto = few_directions(base, seed=9)
    done = diffpack.rebase(diff, onto)
    assert ranks(done.diff) == ranks(diff)
    assert "lowrank" in done.diff.manifest.requires
    recipe = done.diff.manifest.recipe
    assert {key: recipe[key] for key in ("values", "factors")} == {
        key: diff.manifest.recipe[key] for key in ("values", "factors")
    }
    assert done.notes == ()
    assert done.diff.nbytes < 1.1 * diff.nbytes
    found = diffpack.load(onto, done.diff)
    assert bits(found) == bits({name: added(diff, name, onto) if name in diff else onto[name] for name in onto})
    assert diffpack.verify(done.diff, onto).result == done.diff.manifest.result.fingerprint


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_rebase_that_leaves_a_tensor_of_a_group_out_keeps_the_values_of_the_others(options: dict[str, Any]) -> None:
    diff = factored(**options)
    onto = few_directions(BASE, seed=9) | {"head.weight": np.zeros((3, 160), np.float32)}
    done = diffpack.rebase(diff, onto)
    assert list(done.left_out) == ["head.weight"]
    assert any("factors become float32 values" in note and "body.0.weight" in note for note in done.notes)
    assert not any(ranks(done.diff).values())
    assert "lowrank" not in done.diff.manifest.requires
    assert "factors" not in done.diff.manifest.recipe
    assert done.diff.manifest.recipe["values"] == ("grid" if "budget" in options else "f32")  # vectors stay on the grid
    found = diffpack.load(onto, done.diff)
    assert bits(found) == bits({name: added(diff, name, onto) if name in done.diff else onto[name] for name in onto})


def test_sums_with_factors_beyond_the_dtype_are_refused_or_clipped() -> None:
    base = matrices(dtype=np.float16)
    onto = base | {"body.1.weight": np.full((96, 192), 65504, np.float16)}
    far = diffpack.extract(base, few_directions(base, size=100), values="lowrank", rank=2)
    assert ranks(far)["body.1.weight"] == 2
    with pytest.raises(UsageError, match=r"body\.1\.weight: [\d,]+ F16 entries"):
        diffpack.rebase(far, onto)
    clipped = diffpack.rebase(far, onto, clip=True)
    assert any("clipped" in note for note in clipped.notes)
    assert any("factors become float32 values" in note for note in clipped.notes)
    found = diffpack.load(onto, clipped.diff)["body.1.weight"]
    with np.errstate(over="ignore"):
        beyond = added(far, "body.1.weight", onto)
    assert np.isinf(beyond).any()
    assert np.array_equal(found, np.minimum(beyond, np.float16(65504)))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_new_prefix_leaves_chunks_as_they_are(options: dict[str, Any]) -> None:
    diff = factored(**options)
    done = diffpack.rename(diff, [("", "m.")], base=BASE)
    assert done.diff.chunks == diff.chunks
    assert done.diff.manifest.requires == diff.manifest.requires
    assert done.diff.manifest.recipe == diff.manifest.recipe
    assert ranks(done.diff) == {f"m.{name}": rank for name, rank in ranks(diff).items()}
    assert done.notes == ()
    result = diffpack.load(BASE, diff)
    assert bits(diffpack.load(BASE, done.diff)) == bits({f"m.{name}": array for name, array in result.items()})


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_names_in_another_order_keep_the_values(options: dict[str, Any]) -> None:
    diff = factored(**options)
    new = {"body.0.weight": "z", "body.1.weight": "y", "body.bias": "x", "head.weight": "w", "ids": "v"}
    done = diffpack.rename(diff, new.__getitem__, base=BASE)
    assert any("factors become float32 values" in note for note in done.notes)
    assert not any(ranks(done.diff).values())
    assert done.diff.manifest.recipe["values"] == ("grid" if "budget" in options else "f32")  # vectors stay on the grid
    result = diffpack.load(BASE, diff)
    assert bits(diffpack.load(BASE, done.diff)) == bits({new[name]: array for name, array in result.items()})
    assert {name: done.diff.error(new[name]) for name in diff} == {name: diff.error(name) for name in diff}


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("based", [True, False])
def test_a_merge_adds_what_factors_come_to(options: dict[str, Any], based: bool) -> None:
    one, two = factored(**options), factored(seed=5, **options)
    merged = diffpack.merge([one, two], base=BASE if based else None, weights=[0.5, 0.25])
    for name in ("body.0.weight", "body.1.weight", "head.weight"):
        wide = [diff[name].to_dense().astype(np.float64) for diff in (one, two)]
        expected = (0.5 * wide[0] + 0.25 * wide[1]).astype(np.float32)
        assert np.array_equal(merged[name].to_dense(), expected)
    taken = diffpack.merge([one, two], base=BASE, take={"*": 1})
    assert bits(diffpack.load(BASE, taken)) == bits(diffpack.load(BASE, two))
    assert diffpack.merge([one], base=BASE).chunks == one.chunks


@pytest.mark.parametrize("method", ["ties", "dare_linear", "della", "magnitude", "sce", "breadcrumbs"])
def test_merge_methods_take_factors_as_the_values_they_come_to(method: str) -> None:
    nothing = {name: np.zeros_like(array) for name, array in BASE.items()}  # so that sums are the values themselves
    diffs = [diffpack.rebase(factored(values="lowrank", rank=2, seed=seed), nothing).diff for seed in (1, 5)]
    assert all(ranks(diff)["body.0.weight"] == 2 for diff in diffs)
    plain = [diffpack.extract(nothing, diffpack.load(nothing, diff), values="f32") for diff in diffs]
    options: dict[str, Any] = {"method": method, "base": nothing, "density": 0.4}
    found, expected = (diffpack.load(nothing, diffpack.merge(item, **options)) for item in (diffs, plain))
    assert bits(found) == bits(expected)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_diffs_with_factors_are_compared_by_their_values(options: dict[str, Any]) -> None:
    one, two = factored(**options), factored(seed=5, **options)
    found = diffpack.compare(one, two)
    wide = [
        np.concatenate([diff[name].to_dense().astype(np.float64).reshape(-1) for name in sorted({*one, *two})])
        for diff in (one, two)
    ]
    norms = [float(np.linalg.norm(change)) for change in wide]
    assert found.total.norms == pytest.approx(norms)
    assert found.total.cosine == pytest.approx(wide[0] @ wide[1] / (norms[0] * norms[1]))
    assert found.total.both == np.count_nonzero((wide[0] != 0) & (wide[1] != 0))
    exact = diffpack.extract(BASE, few_directions(BASE, seed=5))
    assert diffpack.compare(one, exact).total.both  # by signs: steps are no floats without the base
    assert diffpack.compare(one, exact, BASE).total.cosine is not None


def test_chains_and_undos_of_factors_are_refused() -> None:
    diff = factored(values="lowrank", rank=2)
    with pytest.raises(UsageError, match="lossy; only exact diffs can be composed"):
        diffpack.compose([diff])
    with pytest.raises(UsageError, match="lossy; only exact diffs can be inverted"):
        diffpack.invert(diff)


def test_fused_matrices_keep_their_factors() -> None:
    rng = np.random.default_rng(3)
    base = {f"{name}.weight": rng.standard_normal((96, 96)).astype(np.float32) for name in "qkv"}
    fused = {"qkv.weight": np.concatenate([base[f"{name}.weight"] for name in "qkv"])}
    diffs = [diffpack.extract(base, few_directions(fused, seed=seed), values="lowrank", rank=2) for seed in (1, 5)]
    assert all(diff.manifest.slices and diff["qkv.weight"].rank == 2 for diff in diffs)
    onto = {name: array + np.float32(0.5) for name, array in base.items()}
    done = diffpack.rebase(diffs[0], onto, base=base).diff
    assert done["qkv.weight"].rank == 2
    whole = {"qkv.weight": np.concatenate([onto[f"{name}.weight"] for name in "qkv"])}
    assert np.array_equal(
        diffpack.load(onto, done)["qkv.weight"], whole["qkv.weight"] + diffs[0]["qkv.weight"].to_dense()
    )
    merged = diffpack.merge(diffs, base=base)
    assert np.allclose(
        diffpack.load(base, merged)["qkv.weight"],
        fused["qkv.weight"] + diffs[0]["qkv.weight"].to_dense() + diffs[1]["qkv.weight"].to_dense(),
        atol=1e-5,
    )


def test_tensors_compared_with_others_leave_the_factors_of_other_groups() -> None:
    """A rebase writes the one that was compared with another tensor anew; the rest stays as it is coded."""
    base = matrices() | {"near.weight": np.random.default_rng(7).standard_normal((64, 96)).astype(np.float16)}
    tuned = few_directions(matrices()) | {
        "near.weight": base["near.weight"],
        "tail.weight": base["near.weight"] + (np.arange(96) % 7 == 0).astype(np.float16) / 8,
    }
    diff = diffpack.extract(base, tuned, values="lowrank", rank=2)
    assert diff.manifest.copies == {"tail.weight": "near.weight"}
    other = diffpack.extract(base, few_directions(base, seed=5), values="lowrank", rank=2)
    assert diffpack.compare(diff, other, base).total.cosine is not None
    done = diffpack.rebase(diff, base, base=base).diff
    assert bits(diffpack.load(base, done)) == bits(diffpack.load(base, diff))
    assert done["body.0.weight"].rank == 2
