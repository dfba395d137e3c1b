"""Words coded with their like, by row, column and exponent: smaller, exact, and told without the base what can be."""

from __future__ import annotations

from itertools import pairwise

import ml_dtypes
import numpy as np
import pytest
from click.testing import CliRunner

import diffpack
from diffpack.errors import BaseNeededError, WrongBaseError
from diffpack.format.positions.geometry import Geometry, row_width
from diffpack.format.positions.levels import Plan
from diffpack.format.positions.split import CLASS_WORDS, Split
from diffpack.tensors.dtypes import DTYPES, MANTISSA_BITS, exponents
from diffpack_cli.main import cli
from tests.tools.models import bits


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
    assert small.manifest.requires == ("levels", "pco")
    assert small.contexts("w") == ("exponent",)


@pytest.mark.parametrize("name", ["F64", "F32", "F16", "BF16"])
def test_classes_hold_every_word_once_in_order_and_enough_of_them(name):
    dtype = DTYPES[name]
    words = np.random.default_rng(0).integers(0, 1 << 16, 50_000).astype(dtype.word) << np.array(
        dtype.word_bits - 16, dtype.word
    )
    split = Split.by(exponents(words, dtype))
    parts = np.split(split.order(), split.bounds[1:-1])
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(words.size))
    assert all((np.diff(part) > 0).all() for part in parts)
    assert all(part.size >= CLASS_WORDS for part in parts)
    sign_and_mantissa = np.array(dtype.word_bits - 1, dtype.word), np.array(MANTISSA_BITS[name], dtype.word)
    own = [(words[part] & ~(np.array(1, dtype.word) << sign_and_mantissa[0])) >> sign_and_mantissa[1] for part in parts]
    assert all(low.max() < high.min() for low, high in pairwise(own))


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
    base, tuned = update()
    base["ids"] = np.arange(50)
    tuned |= {"ids": base["ids"][::-1].copy(), "new": np.ones(5, np.float32)}
    diff = diffpack.extract(base, tuned, profile="smallest")
    assert {name: record.coding[0] for name, record in diff.items()} == {"w": "levels", "ids": "all", "new": "all"}
    assert bits(diffpack.load(base, diff)) == bits(tuned)


def test_many_tensors_share_a_chunk_and_large_ones_are_cut():
    base, tuned = update(5_000_000, 3e-6)
    diff = diffpack.extract(base, tuned, profile="smallest")
    assert len(diff.manifest.groups[0].ends) == 2
    assert bits(diffpack.load(base, diff)) == bits(tuned)


def test_inspect_says_that_the_base_is_needed(tmp_path):
    base, tuned = update(100_000)
    for profile, needed in (("compact", False), ("smallest", True)):
        diffpack.extract(base, tuned, tmp_path / f"{profile}.dpk", profile=profile)
        shown = CliRunner().invoke(cli, ["inspect", str(tmp_path / f"{profile}.dpk")])
        assert shown.exit_code == 0
        assert ("need the base" in shown.stdout) is needed


GEOMETRIES = [
    [((4, 5), 0, 20)],
    [((4, 5), 3, 18), ((7,), 0, 7)],
    [((6,), 2, 5), ((2, 3, 4), 5, 24), ((), 0, 1)],
    [((3, 1), 1, 3), ((2, 50), 60, 61)],
]


@pytest.mark.parametrize("parts", GEOMETRIES)
def test_rows_and_columns_are_those_of_the_tensors(parts):
    """Compared with levels laid out tensor by tensor."""
    rng = np.random.default_rng(0)
    geometry = Geometry.of([(DTYPES["F32"], *part) for part in parts])
    rows = rng.integers(-128, 128, geometry.rows).astype(np.int8)
    columns = rng.integers(-128, 128, geometry.columns).astype(np.int8)
    expected, row, column = [], 0, 0
    for shape, start, stop in parts:
        width = shape[-1] if len(shape) > 1 else int(np.prod(shape))
        first = start // width
        for word in range(start, stop):
            own = int(columns[column + word % width]) if len(shape) > 1 else 0
            expected.append(int(rows[row + word // width - first]) + own)
        row += (stop - 1) // width - first + 1
        column += width if len(shape) > 1 else 0
    assert (row, column) == (rows.size, columns.size)
    keys = Plan(rows, columns).keys(geometry, None)
    assert keys.tolist() == expected


def test_words_that_make_no_rows_are_one():
    assert row_width(DTYPES["F4"], (3, 5)) == DTYPES["F4"].words((3, 5)) == 8
    assert row_width(DTYPES["C64"], (3, 5)) == 10
    assert row_width(DTYPES["F32"], ()) == 1


@pytest.mark.parametrize(("changed", "contexts"), [("rows", ("rows",)), ("columns", ("columns",))])
@pytest.mark.parametrize("profile", ["compact", "portable"])
def test_changed_rows_and_columns_cost_no_positions(changed, contexts, profile):
    rng = np.random.default_rng(0)
    base = {"w": rng.standard_normal((2000, 300)).astype(np.float32)}
    tuned = {"w": base["w"].copy()}
    where = (rng.random(2000) < 0.05, slice(None)) if changed == "rows" else (slice(None), rng.random(300) < 0.05)
    tuned["w"][where] += rng.normal(0, 1e-6, tuned["w"][where].shape).astype(np.float32)
    chosen, gaps = (diffpack.extract(base, tuned, positions=name, profile=profile) for name in ("auto", "gaps"))
    assert chosen.contexts("w") == contexts
    assert chosen.nbytes < gaps.nbytes
    assert bits(diffpack.load(base, chosen)) == bits(tuned)
    count = int((base["w"] != tuned["w"]).sum())
    assert chosen["w"].count == count
    assert np.array_equal(chosen["w"].positions, gaps["w"].positions)  # without the base
    assert np.array_equal(chosen["w"].values, gaps["w"].values)
    assert diffpack.stats(chosen).diffs[0].changed == count


def test_a_large_tensor_is_decoded_span_by_span():
    base, tuned = update(5_000_000, 3e-6)
    diff = diffpack.extract(base, tuned, profile="smallest")
    last = list(diff.against(base)["w"].changes())[-1]
    assert (last.start, last.stop) == (diff.manifest.groups[0].ends[0], 5_000_000)
