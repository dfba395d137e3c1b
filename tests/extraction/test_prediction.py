"""Exact diffs in the profile `smallest`: factors predict a change of few directions, only where that pays."""

from __future__ import annotations

from itertools import product
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import diffpack
from diffpack.extraction.lowrank.step_bits import StepBits
from diffpack.tensors.dtypes import DTYPES, array_words, ordered
from tests.tools.low_rank import few_directions, matrices
from tests.tools.models import Arrays, bits

KINDS = {"F32": np.float32, "BF16": ml_dtypes.bfloat16, "F16": np.float16, "F64": np.float64}


def noisy(base: Arrays, size: float = 1e-3) -> Arrays:
    """A change of three directions, and a little of its own in every entry."""
    rng = np.random.default_rng(5)
    tuned = few_directions(base)
    return {
        name: (array.astype(np.float64) + size * rng.standard_normal(array.shape)).astype(array.dtype)
        if array.dtype.kind in "fV"
        else array
        for name, array in tuned.items()
    }


def smallest(base: Arrays, tuned: Arrays, **options: Any) -> diffpack.Diff:
    return diffpack.extract(base, tuned, profile="smallest", **options)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_few_directions_are_predicted_and_given_back_bit_for_bit(kind: Any) -> None:
    base = matrices(dtype=kind)
    tuned = noisy(base)
    diff = smallest(base, tuned)
    assert diff.manifest.exact
    assert {name: record.rank for name, record in diff.items() if record.rank} == {
        "body.0.weight": 3, "body.1.weight": 3, "head.weight": 3,
    }  # fmt: skip
    assert diff.nbytes < smallest(base, tuned, rank=0).nbytes
    assert bits(diffpack.load(base, diff)) == bits(tuned)
    assert diffpack.verify(diff, base).result == diffpack.fingerprint(tuned)


def test_a_merged_adapter_is_hardly_more_than_its_factors() -> None:
    base = matrices(dtype=ml_dtypes.bfloat16)
    tuned = {**base, **{name: array for name, array in few_directions(base).items() if array.ndim == 2}}
    diff = smallest(base, tuned)
    assert diff.nbytes < 0.3 * smallest(base, tuned, rank=0).nbytes
    assert bits(diffpack.load(base, diff)) == bits(tuned)


def in_pieces(rng: np.random.Generator, share: float) -> tuple[Arrays, Arrays]:
    base = {"w": rng.standard_normal((256, 192)).astype(np.float32)}
    moved = np.where(rng.random((256, 192)) < share, 1e-3 * rng.standard_normal((256, 192)), 0)
    return base, {"w": (base["w"] + moved).astype(np.float32)}


@pytest.mark.parametrize("share", [0.005, 0.05, 1.0])
def test_no_factors_where_a_change_has_no_directions(share: float) -> None:
    base, tuned = in_pieces(np.random.default_rng(3), share)
    diff = smallest(base, tuned)
    assert diff["w"].rank == 0
    assert "lowrank" not in diff.manifest.requires
    assert bits(diffpack.load(base, diff)) == bits(tuned)


def test_a_rank_is_the_largest_there_is() -> None:
    base = matrices()
    sizes = []
    for rank in (0, 1, 2):
        diff = smallest(base, noisy(base), rank=rank)
        assert {record.rank for record in diff.values()} == {0, rank}
        assert bits(diffpack.load(base, diff)) == bits(noisy(base))
        sizes.append(diff.nbytes)
    assert sizes[0] > sizes[1] > sizes[2] > smallest(base, noisy(base)).nbytes


@pytest.mark.parametrize("profile", ["compact", "portable"])
def test_other_profiles_have_no_factors(profile: str) -> None:
    base = matrices()
    diff = diffpack.extract(base, noisy(base), profile=profile)
    assert not any(record.rank for record in diff.values())


@pytest.mark.parametrize("positions", ["gaps", "all"])
def test_asked_for_positions_are_kept(positions: str) -> None:
    base = matrices()
    diff = smallest(base, noisy(base), positions=positions)
    assert not any(record.rank for record in diff.values())


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_what_is_not_finite_stays_as_it_is(kind: Any) -> None:
    base = matrices(dtype=kind)
    tuned = noisy(base)
    base["body.0.weight"][3, :5] = [np.inf, -np.inf, np.nan, -0.0, 0.0]
    tuned["body.0.weight"][3, :5] = base["body.0.weight"][3, :5]
    tuned["body.1.weight"][4, :4] = [np.inf, -np.inf, np.nan, -0.0]
    base["head.weight"][5, :2] = [-0.0, 0.0]
    tuned["head.weight"][5, :2] = [0.0, -0.0]
    diff = smallest(base, tuned)
    assert diff["head.weight"].rank > 0
    assert bits(diffpack.load(base, diff)) == bits(tuned)


def test_beyond_float32_nothing_is_predicted() -> None:
    base = {"w": np.zeros((64, 64))}
    base["w"][::2] = 5e-324
    tuned = {"w": np.outer(np.linspace(1, 2, 64), np.linspace(-1, 1, 64)) * 1e300}
    diff = smallest(base, tuned)
    assert diff["w"].rank == 0
    assert bits(diffpack.load(base, diff)) == bits(tuned)


def test_a_retyped_tensor_is_predicted_in_its_new_dtype() -> None:
    base = matrices()
    tuned = {
        name: array.astype(ml_dtypes.bfloat16) if array.dtype == np.float32 else array
        for name, array in noisy(base).items()
    }
    diff = smallest(base, tuned)
    assert diff["body.0.weight"].rank > 0
    assert diff["body.0.weight"].kind == "retyped"
    assert bits(diffpack.load(base, diff)) == bits(tuned)


def test_a_resized_matrix_is_predicted_where_that_pays() -> None:
    base = matrices()
    tuned = noisy(base)
    tuned["head.weight"] = np.concatenate([tuned["head.weight"], tuned["head.weight"][:2]])
    diff = smallest(base, tuned)
    assert diff["head.weight"].kind == "resized"
    assert bits(diffpack.load(base, diff)) == bits(tuned)


def test_a_stack_of_experts_has_factors_each() -> None:
    rng = np.random.default_rng(2)
    base = {"experts": (0.1 * rng.standard_normal((4, 96, 128))).astype(ml_dtypes.bfloat16)}
    low = rng.standard_normal((4, 96, 2)) @ rng.standard_normal((4, 2, 128))
    tuned = {"experts": (base["experts"].astype(np.float64) + 0.02 * low).astype(ml_dtypes.bfloat16)}
    diff = smallest(base, tuned)
    factors = diff["experts"].factors
    assert factors is not None
    assert [matrix.rank for matrix in factors.matrices] == [2, 2, 2, 2]
    assert bits(diffpack.load(base, diff)) == bits(tuned)


def test_the_same_bytes_with_any_number_of_threads(tmp_path: Any) -> None:
    base = matrices(dtype=ml_dtypes.bfloat16)
    written = []
    for threads in (1, 2, 3):
        smallest(base, noisy(base), output=tmp_path / "a.dpk", threads=threads, force=True).close()
        written.append((tmp_path / "a.dpk").read_bytes())
    assert written[0] == written[1] == written[2]


@pytest.mark.parametrize(
    ("kind", "apart"), [*product(("F32", "BF16", "F16"), (0.03, 0.4, 3.0)), ("F32", 200.0), ("F32", 3e4)]
)
def test_bits_of_steps_are_those_of_rounded_numbers(kind: str, apart: float) -> None:
    rng = np.random.default_rng(1)
    dtype = DTYPES[kind]
    plain = 1 + rng.random(1 << 18)  # one exponent, so one last place
    place = float(np.spacing(np.array(1, KINDS[kind]))) if kind != "BF16" else 2.0**-7
    moved = plain + apart * place * rng.standard_normal(plain.size)
    words = [array_words(side.astype(KINDS[kind]), dtype) for side in (plain, moved)]
    steps = ordered(words[1], dtype).astype(np.int64) - ordered(words[0], dtype)
    inside = (moved > 1) & (moved < 2)
    _, counts = np.unique(steps[inside], return_counts=True)
    found = float(np.log2(counts.sum()) - (counts * np.log2(counts)).sum() / counts.sum())
    own = words[0][(plain > 1) & (plain < 2 - place)]
    assert StepBits(own, dtype).of(apart * place) == pytest.approx(found, rel=0.04)
