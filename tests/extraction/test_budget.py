"""Byte budgets and target errors: where they land, what the file says of its error, what weights do."""

from __future__ import annotations

import json

import ml_dtypes
import numpy as np
import pytest
from click.testing import CliRunner

import diffpack
from diffpack.errors import UsageError
from diffpack.extraction.encode import grid_quantiser
from diffpack.extraction.target import Target
from diffpack.format.values import grid
from diffpack_cli.main import cli
from tests.tools.models import bits, write_safetensors


def pair(dtype=np.float32, shape=(600, 500)):
    """Rows move by amounts that differ, and a few tensors are not for the grid."""
    rng = np.random.default_rng(0)
    base = {
        "w": rng.standard_normal(shape).astype(dtype),
        "b": rng.standard_normal(shape[1]).astype(dtype),
        "ids": np.arange(10),
    }
    scales = 10 ** rng.uniform(-4, -2, (shape[0], 1))
    tuned = {
        "w": (base["w"].astype(np.float64) + scales * rng.standard_normal(shape)).astype(dtype),
        "b": (base["b"].astype(np.float64) + 0.01 * rng.standard_normal(shape[1])).astype(dtype),
        "ids": base["ids"][::-1].copy(),
        "new": rng.standard_normal(20).astype(dtype),
    }
    return base, tuned


def relative_error(result, tuned, base, names=("w", "b")):
    def norm(one, other):
        return np.sqrt(sum(np.square(one[n].astype(float) - other[n].astype(float)).sum() for n in names))

    return norm(result, tuned) / norm(tuned, base)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("budget", [30_000, "60kB", "8%"])
def test_a_budget_is_met_from_below_by_at_most_one_percent(dtype, budget):
    base, tuned = pair(np.dtype(dtype))
    diff = diffpack.extract(base, tuned, budget=budget)
    asked = Target.of(budget, None).of_base(sum(array.nbytes for array in base.values())).budget
    assert 0.99 * asked <= diff.nbytes <= asked
    assert not diff.exact
    result = diffpack.load(base, diff)
    assert bits({name: result[name] for name in ("ids", "new")}) == bits({name: tuned[name] for name in ("ids", "new")})
    counted = diffpack.stats(diff).diffs[0]
    assert counted.error == pytest.approx(relative_error(result, tuned, base), rel=1e-4)
    errors = {item.name: item.error for item in counted.tensors}
    assert errors["ids"] == errors["new"] == 0
    assert errors["w"] == pytest.approx(relative_error(result, tuned, base, ["w"]), rel=1e-4)


@pytest.mark.parametrize("error", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("profile", ["compact", "portable"])
def test_a_target_error_is_kept(error, profile):
    base, tuned = pair()
    diff = diffpack.extract(base, tuned, target_error=error, profile=profile)
    assert 0.99 * error <= relative_error(diffpack.load(base, diff), tuned, base) <= error


def test_more_bytes_give_less_error():
    base, tuned = pair()
    errors = [diffpack.stats(diffpack.extract(base, tuned, budget=size)).diffs[0].error for size in (20_000, 60_000)]
    assert errors[1] < 0.6 * errors[0]


@pytest.mark.parametrize("size", [20_000, 60_000, 150_000])
def test_the_grid_beats_the_largest_differences_in_int8(size):
    base, tuned = pair()
    graded = diffpack.stats(diffpack.extract(base, tuned, budget=size)).diffs[0]
    density = 1.0
    while (largest := diffpack.extract(base, tuned, density=density, values="int8")).nbytes > size:
        density *= 0.9
    assert graded.error < 0.8 * diffpack.stats(largest).diffs[0].error


def test_grid_values_are_told_without_the_base():
    base, tuned = pair()
    diff = diffpack.extract(base, tuned, budget=60_000)
    record = diff["w"]
    assert record.coding == ("levels", "grid")
    added = (base["w"].reshape(-1)[record.positions] + record.values).astype(np.float32)
    assert np.array_equal(added, diffpack.load(base, diff)["w"].reshape(-1)[record.positions])
    assert record.count == record.positions.size == np.count_nonzero(record.to_dense())
    step = record.scale * grid.UNITS
    assert np.abs(record.values).min() > 0.5 * step


def test_a_word_without_a_number_does_not_change():
    """-0.0 + 0.0 would be 0.0."""
    base, tuned = pair()
    base["w"][::2], tuned["w"][::2] = -0.0, 1e-9
    diff = diffpack.extract(base, tuned, budget=40_000)
    kept = np.ones(base["w"].size, bool)
    kept[diff["w"].positions] = False
    result = diffpack.load(base, diff)["w"].reshape(-1)
    assert kept.reshape(base["w"].shape)[::2].all()
    assert np.array_equal(result.view(np.uint32)[kept], base["w"].reshape(-1).view(np.uint32)[kept])


def test_a_budget_the_exact_diff_fits_gives_the_exact_diff():
    base, tuned = pair()
    diff = diffpack.extract(base, tuned, budget="100%")
    assert diff.exact
    assert bits(diffpack.load(base, diff)) == bits(tuned)


def test_weights_move_bytes_to_what_matters(tmp_path):
    base, tuned = pair(shape=(300, 500))
    base["v"], tuned["v"] = base["w"][:, ::-1].copy(), tuned["w"][:, ::-1].copy()
    fisher = {"w": np.full((300, 500), 100.0, np.float32), "v": np.array(1.0, np.float32)}
    plain, weighted = (
        {item.name: item.error for item in diffpack.stats(diff).diffs[0].tensors}
        for diff in (
            diffpack.extract(base, tuned, budget=60_000),
            diffpack.extract(
                base, tuned, budget=60_000, importance=write_safetensors(tmp_path / "f.safetensors", fisher)
            ),
        )
    )
    assert plain["w"] == pytest.approx(plain["v"], rel=0.05)
    assert weighted["w"] < 0.6 * plain["w"]
    assert weighted["v"] > plain["v"]


def test_differences_that_are_not_finite_are_stored_exactly():
    base, tuned = pair()
    tuned["b"][3] = np.inf
    base["b"][4], tuned["b"][5] = np.nan, np.nan
    diff = diffpack.extract(base, tuned, budget=60_000)
    assert diff["b"].coding[1] == "exact"
    assert bits({"b": diffpack.load(base, diff)["b"]}) == bits({"b": tuned["b"]})


def test_an_outlier_does_not_leave_the_grid():
    base, tuned = pair()
    tuned["b"][0] = 1e6
    result = diffpack.load(base, diffpack.extract(base, tuned, target_error=1e-3))
    assert result["b"][0] == pytest.approx(1e6, rel=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": "1 furlong"}, "a size"),
        ({"budget": 500}, "not enough"),
        ({"budget": 10_000, "target_error": 0.1}, "one of"),
        ({"budget": 10_000, "density": 0.1}, "no other choice"),
        ({"target_error": 0.1, "values": "f16"}, "no other choice"),
        ({"target_error": 1.5}, "between 0 and 1"),
        ({"budget": 10_000, "importance": {"x": np.ones(1, np.float32)}}, "none of the tuned"),
        ({"budget": 10_000, "importance": {"w": np.full(1, -1, np.float32)}}, "not negative"),
        ({"budget": 10_000, "importance": {"w": np.ones(1, np.int32)}}, "floats"),
        ({"importance": {"w": np.ones(1, np.float32)}}, "budget or a target error"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message, tmp_path):
    base, tuned = pair()
    with pytest.raises(UsageError, match=message):
        diffpack.extract(base, tuned, tmp_path / "out.dpk", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [("1MB", 10**6), ("1.5 KiB", 1536), ("0.3%", 3000), (77, 77), ("9b", 9), ("1M", 10**6), ("2k", 2000), ("1Ki", 1024),
     ("1.5g", 15 * 10**8), ("1mb", 10**6), ("1kb", 1000), ("500000", 500_000), ("0.005", 5000), (".5", 500_000),
     (0.25, 250_000), (1e-5, 10), (" 7 % ", 70_000), ("150%", 1_500_000), ("0.5MB", 500_000), ("2TiB", 2 << 40),
     ("0", 0)],
)  # fmt: skip
def test_sizes_mean_what_they_say(text, bytes_):
    assert Target.of(text, None).of_base(10**6).budget == bytes_


@pytest.mark.parametrize(
    ("text", "message"),
    [("1.5", "may be bytes or a part of the base"), ("1.0", "may be bytes or a part"), (1.5, "may be bytes or a part"),
     ("0.5b", "may be bytes or a part"), ("0.0", "may be bytes or a part"), ("1Mb", "may be bits: 1MB is bytes"),
     ("2.5Gib", "may be bits: 2.5GiB is bytes"), ("Kb", "not 'Kb'"), ("-5", "not '-5'"), ("1e6", "not '1e6'"),
     ("1,000", "not '1,000'"), ("0,5%", "not '0,5%'"), ("5 per cent", "a size with its unit"), ("", "not ''"),
     (float("nan"), "not 'nan'"), (float("inf"), "not 'inf'"), ("9" * 400, "more than any file"),
     ("1" + "0" * 30 + "%", "more than any file"), (True, "not 'True'")],
)  # fmt: skip
def test_sizes_that_may_mean_two_things_or_nothing_are_refused_by_name(text, message):
    with pytest.raises(UsageError, match=message):
        Target.of(text, None).of_base(10**6)


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 3.0, 100.0])
def test_numbers_are_chosen_for_error_and_bits_together(sigma):
    """At the entropy of its own numbers, the choice beats rounding with a dead zone of half a step."""
    x = (np.random.default_rng(0).standard_normal(200_000) * sigma).astype(np.float32)

    def cost(numbers, values):
        counts = np.bincount(numbers - numbers.min()) / numbers.size
        bits_each = -(counts[counts > 0] * np.log2(counts[counts > 0])).sum()
        return np.square(values - x).mean() + grid_quantiser.PRICE * bits_each

    numbers, offsets = grid_quantiser.quantise(x)
    chosen = grid.GRID.in_units(numbers, np.array(offsets, np.int8)) / grid.UNITS
    rounded = np.rint(x).astype(int)
    assert cost(numbers.astype(int), chosen) <= cost(rounded, rounded) * 1.0001


def test_the_command_line_finds_a_budget_and_shows_the_error(tmp_path):
    sides = [write_safetensors(tmp_path / f"{at}.safetensors", side) for at, side in enumerate(pair())]
    out = tmp_path / "out.dpk"
    command = ["extract", "--base", str(sides[0]), "--tuned", str(sides[1]), "-o", str(out), "--budget", "50kB"]
    made = CliRunner().invoke(cli, command)
    assert made.exit_code == 0
    assert "of the change (relative L2)" in made.stdout
    found = json.loads(CliRunner().invoke(cli, ["stats", "--json", "--tensors", str(out)]).stdout)["diffs"][0]
    assert 0 < found["error"] < 1
    assert all(item["error"] is not None for item in found["tensors"])
    text = CliRunner().invoke(cli, ["stats", str(out)]).stdout
    assert f"{found['error']:.4f}" in text


@pytest.mark.parametrize("values", ["int8", "int4", "ternary", "sign"])
@pytest.mark.parametrize("density", [None, 0.2])
def test_coarser_values_keep_to_their_multiples(values, density):
    base, tuned = pair(dtype=ml_dtypes.bfloat16)
    base, tuned = ({name: side[name].astype(np.float32) for name in ("w", "b")} for side in (base, tuned))
    diff = diffpack.extract(base, tuned, values=values, density=density)
    for record in diff.values():
        multiples = np.unique(np.rint(record.values / record.scale))
        assert np.abs(multiples).max() <= {"int8": 127, "int4": 7, "ternary": 1, "sign": 1}[values]
        if values == "sign":
            moved = (tuned[record.name] - base[record.name]).reshape(-1)[record.positions]
            assert np.array_equal(np.sign(record.values), np.sign(moved))
            assert record.scale == pytest.approx(np.abs(moved[moved != 0]).mean(), rel=1e-5)
    assert 0 < diffpack.stats(diff).diffs[0].error < 1
