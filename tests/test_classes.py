"""Changes coded against the base: smaller, and still exact, refused for another base, counted without one."""

from __future__ import annotations

from itertools import pairwise

import ml_dtypes
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import bits, model, tune

import diffpack
from diffpack.codecs.positions import classes
from diffpack.dtypes import DTYPES
from diffpack.errors import BaseNeededError, WrongBaseError
from diffpack_cli.main import cli


def update(size=300_000, rate=1e-5, seed=0):
    """An RL-like update: a bfloat16 model and its float32 masters, each moved by about `rate`."""
    rng = np.random.default_rng(seed)
    masters = (rng.standard_normal(size) * 0.05).astype(np.float32)
    base = masters.astype(ml_dtypes.bfloat16)
    moved = masters + (rng.choice([-1, 1], size) * rate * rng.lognormal(0, 1, size)).astype(np.float32)
    return {"w": base, "b": base[:500]}, {"w": moved.astype(ml_dtypes.bfloat16), "b": base[:500]}


def test_words_of_like_exponent_are_coded_together():
    base, tuned = update()
    plain, small = (diffpack.extract(base, tuned, profile=profile) for profile in ("compact", "smallest"))
    assert small.nbytes < 0.85 * plain.nbytes
    assert bits(diffpack.load(base, small)) == bits(tuned)
    assert small.manifest.requires == ("classes", "pco")


@pytest.mark.parametrize("name", ["F64", "F32", "F16", "BF16"])
def test_classes_hold_every_word_once_in_order_and_enough_of_them(name):
    dtype = DTYPES[name]
    words = np.random.default_rng(0).integers(0, 1 << 16, 50_000).astype(dtype.word) << np.array(
        dtype.word_bits - 16, dtype.word
    )
    parts = classes.members(words, dtype)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(words.size))
    assert all((np.diff(part) > 0).all() for part in parts)
    assert all(part.size >= classes.CLASS_WORDS for part in parts)
    sign_and_mantissa = np.array(dtype.word_bits - 1, dtype.word), np.array(classes.MANTISSA_BITS[name], dtype.word)
    exponents = [
        (words[part] & ~(np.array(1, dtype.word) << sign_and_mantissa[0])) >> sign_and_mantissa[1] for part in parts
    ]
    assert all(low.max() < high.min() for low, high in pairwise(exponents))


def test_counts_and_sizes_are_told_without_the_base():
    base, tuned = update()
    diff = diffpack.extract(base, tuned, profile="smallest")
    changed = int((base["w"].view(np.uint16) != tuned["w"].view(np.uint16)).sum())
    assert diffpack.stats(diff).diffs[0].changed == changed == diff["w"].count
    diffpack.verify(diff)
    with pytest.raises(BaseNeededError, match="'w'"):
        _ = diff["w"].positions


def test_positions_and_steps_are_given_with_the_base():
    base, tuned = update()
    plain, small = (diffpack.extract(base, tuned, profile=profile) for profile in ("compact", "smallest"))
    record = small.against(base)["w"]
    assert np.array_equal(record.positions, plain["w"].positions)
    assert np.array_equal(record.values, plain["w"].values)
    assert np.array_equal(record.to_dense(), plain["w"].to_dense())


@pytest.mark.parametrize("word", [0x0100, 0x7F00])
def test_another_base_is_refused_even_if_its_classes_fit(tmp_path, word):
    base, tuned = update()
    diff = diffpack.extract(base, tuned, profile="smallest")
    other = {name: array.copy() for name, array in base.items()}
    other["w"].view(np.uint16)[::3] ^= word
    with pytest.raises(WrongBaseError, match="w"):
        diffpack.apply(other, diff, tmp_path / "out.safetensors")
    assert not list(tmp_path.iterdir())


def test_what_has_no_exponent_is_coded_as_ever():
    base, tuned = model(), tune(model(), 0.3)
    tuned["scale"] = base["scale"]
    tuned["ids"] = tuned["ids"][::-1].copy()
    tuned["new"] = np.ones(5, np.float32)
    diff = diffpack.extract(base, tuned, profile="smallest")
    assert {name: record.coding[0] for name, record in diff.items()} == {
        "encoder.0.weight": "classes", "encoder.0.bias": "classes", "encoder.1.weight": "classes",
        "embed": "classes", "ids": "all", "new": "all",
    }  # fmt: skip
    assert bits(diffpack.load(base, diff)) == bits(tuned)


def test_many_tensors_share_a_chunk_and_large_ones_are_cut():
    base, tuned = update(5_000_000, 3e-6)
    diff = diffpack.extract(base, tuned, profile="smallest")
    assert len(diff.manifest.groups[0].ends) == 2
    assert bits(diffpack.load(base, diff)) == bits(tuned)


def test_inspect_says_that_the_base_is_needed(tmp_path):
    base, tuned = update(10_000)
    for profile, needed in (("compact", False), ("smallest", True)):
        diffpack.extract(base, tuned, tmp_path / f"{profile}.dpk", profile=profile)
        shown = CliRunner().invoke(cli, ["inspect", str(tmp_path / f"{profile}.dpk")])
        assert shown.exit_code == 0
        assert ("need the base" in shown.stdout) is needed
