"""Budgets, target errors and ranks asked for: factors where a change has few directions, and only there."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import diffpack
from diffpack.checkpoints import open_checkpoint
from diffpack.errors import UsageError
from diffpack.extraction.lowrank import spectrum
from diffpack.extraction.lowrank.matrices import MatrixView
from diffpack.extraction.lowrank.spectrum import Spectrum
from diffpack.extraction.options import Options
from diffpack.extraction.scan.survey import survey

SHAPES = {"square": (192, 192), "tall": (512, 128), "wide": (128, 512)}
DTYPES = {"F32": np.float32, "F64": np.float64, "F16": np.float16, "BF16": ml_dtypes.bfloat16}


def low_rank(rng, shape, rank=6, size=1e-2):
    """A change with few directions of falling size, rows of unlike norms, and a little noise."""
    left = rng.standard_normal((*shape[:-2], shape[-2], rank)) * 0.7 ** np.arange(rank)
    right = rng.standard_normal((*shape[:-2], rank, shape[-1]))
    return size * (left @ right + 0.05 * rng.standard_normal(shape))


def pair(change, dtype=np.float32, shapes=SHAPES, seed=0):
    rng = np.random.default_rng(seed)
    base = {name: (0.1 * rng.standard_normal(shape)).astype(dtype) for name, shape in shapes.items()}
    tuned = {name: (array.astype(np.float64) + change(rng, array.shape)).astype(dtype) for name, array in base.items()}
    return base, tuned


def scattered(rng, shape):
    return np.where(rng.random(shape) < 0.005, rng.standard_normal(shape) * 1e-2, 0)


def small_everywhere(rng, shape):
    return 2e-5 * rng.standard_normal(shape)


def noise(rng, shape):
    return 1e-3 * rng.standard_normal(shape)


def error(diff):
    return (diff.manifest.error or 0) / 1e6


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_a_change_of_few_directions_takes_few_bytes(dtype):
    base, tuned = pair(low_rank, dtype)
    budget = 14_000
    with_factors = diffpack.extract(base, tuned, budget=budget)
    without = diffpack.extract(base, tuned, budget=budget, rank=0)
    assert 0.975 * budget <= with_factors.nbytes <= budget  # a direction of these takes a hundredth
    assert error(with_factors) < 0.4 * error(without)
    assert all(record.rank for record in with_factors.values())
    assert not any(record.rank for record in without.values())
    assert "lowrank" in with_factors.manifest.requires
    assert diffpack.verify(with_factors, base).result == with_factors.manifest.result.fingerprint


def test_a_target_error_is_met_with_fewer_bytes():
    base, tuned = pair(low_rank)
    with_factors = diffpack.extract(base, tuned, target_error=0.3)
    without = diffpack.extract(base, tuned, target_error=0.3, rank=0)
    assert 0.29 <= error(with_factors) <= 0.3
    assert with_factors.nbytes < 0.4 * without.nbytes


@pytest.mark.parametrize("change", [scattered, small_everywhere, noise])
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16], ids=["F32", "BF16"])
@pytest.mark.parametrize("share", [0.006, 0.05])
def test_a_change_without_directions_is_stored_as_without_them(change, dtype, share):
    base, tuned = pair(change, dtype)
    found = diffpack.extract(base, tuned, budget=share)
    plain = diffpack.extract(base, tuned, budget=share, rank=0)
    assert not any(record.rank for record in found.values())
    assert (found.nbytes, error(found)) == (plain.nbytes, error(plain))


@pytest.mark.parametrize("share", [0.004, 0.03, 0.2])
def test_few_directions_and_scattered_entries_are_each_stored_as_they_are(share):
    base, tuned = pair(lambda rng, shape: low_rank(rng, shape) + 5 * scattered(rng, shape))
    found = diffpack.extract(base, tuned, budget=share)
    plain = diffpack.extract(base, tuned, budget=share, rank=0)
    budget = share * found.manifest.base.bytes
    assert 0.95 * budget <= found.nbytes <= budget  # of so small a file a direction more or less is percents
    assert error(found) < error(plain)


def test_the_same_bytes_from_run_to_run_whatever_the_threads():
    base, tuned = pair(low_rank)
    files = []
    for threads in (1, 2, 3):
        with diffpack.extract(base, tuned, budget=20_000, threads=threads) as diff:
            files.append(b"".join(diff.stored(chunk) for chunk in diff.chunks))
    assert files[0] == files[1] == files[2]


def test_a_rank_is_a_bound():
    base, tuned = pair(low_rank)
    diff = diffpack.extract(base, tuned, budget=20_000, rank=2)
    assert {record.rank for record in diff.values()} == {2}
    assert diff.manifest.recipe["factors"] == "of up to 2 directions"


@pytest.mark.parametrize(("shape", "matrices"), [((4, 96, 128), 4), ((192, 16, 3, 3), 1), ((288, 96), 3)])
def test_experts_convolutions_and_projections_are_matrices(shape, matrices):
    def change(rng, shape):
        if matrices > 1:
            return low_rank(rng, (matrices, shape[-2] if len(shape) > 2 else shape[0] // matrices, shape[-1])).reshape(
                shape
            )
        return low_rank(rng, (shape[0], int(np.prod(shape[1:])))).reshape(shape)

    base, tuned = pair(change, shapes={"w": shape})
    diff = diffpack.extract(base, tuned, budget=0.1)
    factors = diff["w"].factors
    assert len(factors.matrices) == matrices
    assert min(matrix.rank for matrix in factors.matrices) > 1
    assert error(diff) < 0.7 * error(diffpack.extract(base, tuned, budget=0.1, rank=0))
    expected = np.stack([left @ right for left, right in factors.pairs()]).reshape(-1)
    np.testing.assert_allclose(factors.change(0, expected.size), expected, rtol=1e-4, atol=1e-7)


def test_a_rank_asked_for_without_a_budget():
    base, tuned = pair(
        lambda rng, shape: low_rank(rng, shape) if len(shape) > 1 else 0.1, shapes={**SHAPES, "bias": (64,)}
    )
    diffs = [diffpack.extract(base, tuned, values="lowrank", rank=rank) for rank in (1, 4)]
    assert [{diff[name].rank for name in SHAPES} for diff in diffs] == [{1}, {4}]
    loaded = diffpack.load(base, diffs[1])
    np.testing.assert_allclose(loaded["bias"], tuned["bias"], atol=1e-7)
    for name in SHAPES:  # of the best approximation of that rank, all but a part in a hundred
        moved = (tuned[name] - base[name]).astype(np.float64)
        best = np.sqrt((np.linalg.svd(moved, compute_uv=False)[4:] ** 2).sum())
        assert best <= np.linalg.norm(tuned[name] - loaded[name].astype(np.float64)) < 1.02 * best


@pytest.mark.parametrize(
    "wrong",
    [{"rank": 3}, {"values": "lowrank", "rank": 0}, {"values": "lowrank", "density": 0.1}, {"budget": 0.1, "rank": -1},
     {"budget": 0.1, "rank": 1.5}, {"budget": 0.1, "values": "lowrank"}],
)  # fmt: skip
def test_a_rank_that_does_not_fit_is_refused(wrong):
    base, tuned = pair(low_rank)
    with pytest.raises(UsageError):
        diffpack.extract(base, tuned, **wrong)


def test_directions_far_larger_than_the_step_are_kept_on_a_coarser_one():
    base, tuned = pair(lambda rng, shape: low_rank(rng, shape, rank=1, size=100.0) * (rng.random(shape) * 1e-6 + 1))
    diff = diffpack.extract(base, tuned, target_error=2e-6)
    assert error(diff) <= 2e-6
    assert diffpack.verify(diff, base)


def views_of(change):
    base = {"w": np.zeros(change.shape, np.float32)}
    surveyed = survey(open_checkpoint(base), open_checkpoint({"w": change}), Options(), None)
    (scan,) = surveyed.stored
    return MatrixView(scan, 1, *change.shape)


@pytest.mark.parametrize("shape", [(90, 400), (400, 90)])
@pytest.mark.parametrize("small_side", [0, 1024], ids=["sketched", "by the Gram matrix"])
def test_singular_vectors_are_those_of_a_full_decomposition(monkeypatch, shape, small_side):
    monkeypatch.setattr(spectrum, "SMALL_SIDE", small_side)
    monkeypatch.setattr(spectrum, "FIRST_RANK", 4)
    change = low_rank(np.random.default_rng(1), shape, rank=30).astype(np.float32)
    values = np.linalg.svd(change.astype(np.float64), compute_uv=False)
    found = Spectrum(views_of(change), 0, 1000)
    for kept in (3, 8, 15):  # each asks for more than the one before
        limit = (values[kept - 1] * values[kept]).item()
        assert found.values_above(limit).size == kept
        components = found.above(limit)
        np.testing.assert_allclose(components.values, values[:kept], rtol=1e-3)
        near = (components.left.T * components.values) @ components.right
        assert np.linalg.norm(change - near) <= 1.001 * np.sqrt((values[kept:] ** 2).sum())
