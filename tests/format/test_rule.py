"""Positions that the base or a seed tells: the same words for every reader, in no bytes."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from blake3 import blake3
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import diffpack
from diffpack.errors import BaseNeededError, DiffpackError, UsageError, WrongBaseError
from diffpack.format.positions import rule_words
from diffpack.format.positions.rule_words import Rule
from diffpack_cli.main import cli
from tests.tools.models import bits, model, tune


def pair(seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    base = {"w": rng.standard_normal((300, 200)), "b": rng.standard_normal(70)}
    base = {name: array.astype(dtype) for name, array in base.items()}
    return base, {name: array * np.asarray(1.25, dtype) for name, array in base.items()}


def key(seed, name, position):
    """The key as the specification says it, in Python's integers."""
    most = (1 << 64) - 1
    z = seed + int.from_bytes(blake3(name.encode()).digest()[:8], "little") + (position + 1) * 0x9E3779B97F4A7C15
    z &= most
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & most
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & most
    return z ^ (z >> 31)


@settings(deadline=None)
@given(st.integers(0, (1 << 63) - 1), st.text(max_size=5), st.integers(0, 60), st.data())
def test_random_words_have_the_smallest_keys(seed, name, words, data):
    count = data.draw(st.integers(0, words))
    expected = sorted(range(words), key=lambda position: key(seed, name, position))[:count]
    assert rule_words.at_random(Rule("random", seed), name, words, count).tolist() == sorted(expected)


@pytest.mark.parametrize("count", [1, 1000, 1_500_000, 2_999_999])
def test_random_words_of_several_blocks_are_the_smallest_of_all(count):
    keys = rule_words._keys((5 + int.from_bytes(blake3(b"w").digest()[:8], "little")) % (1 << 64), 0, 3_000_000)
    expected = np.sort(np.argsort(keys, kind="stable")[:count])
    assert np.array_equal(rule_words.at_random(Rule("random", 5), "w", 3_000_000, count), expected)


@given(st.lists(st.integers(0, 65535), max_size=50), st.booleans(), st.data())
def test_words_by_weight_are_those_of_a_stable_sort(words, largest, data):
    count = data.draw(st.integers(0, len(words)))
    sign = -1 if largest else 1
    expected = sorted(range(len(words)), key=lambda at: sign * (words[at] & 0x7FFF))[:count]
    found = rule_words.by_weight(Rule("largest" if largest else "smallest"), np.array(words, np.uint16), count)
    assert found.tolist() == sorted(expected)


@pytest.mark.parametrize("text", ["", "median", "random", "random -1", "random 01", f"random {1 << 63}", "smallest "])
def test_what_is_no_rule_is_refused(text):
    assert Rule.parse(text) is None
    with pytest.raises(UsageError, match="rule"):
        diffpack.extract(*pair(), rule=text, density=0.1)


@pytest.mark.parametrize(
    "options", [{"rule": "smallest"}, {"rule": "smallest", "top_k": 3}, {"counts": {"w": 1}},
                {"rule": "smallest", "density": 0.1, "counts": {}}, {"rule": "largest", "counts": {"w": 60001}}],
)  # fmt: skip
def test_options_that_do_not_fit_are_refused(options):
    with pytest.raises(UsageError):
        diffpack.extract(*pair(), **options)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("values", ["exact", "f16", "int8"])
@pytest.mark.parametrize("name", ["smallest", "largest", "random 7"])
def test_the_words_told_get_their_values_and_no_others(name, values, dtype):
    base, tuned = pair(dtype=dtype)
    diff = diffpack.extract(base, tuned, rule=name, density=0.1, values=values)
    assert not diff.exact
    assert diff.version == (1, 1)
    assert "rule" in diff.manifest.requires
    result = diffpack.load(base, diff)
    for tensor, reference in base.items():
        size = reference.size
        record = diff.against(base)[tensor]
        assert record.count == record.positions.size == round(0.1 * size)
        words = reference.reshape(-1).view(f"u{reference.itemsize}")
        read = Rule.parse(name)
        told = (
            rule_words.by_weight(read, words, record.count) if read.by_weight
            else rule_words.at_random(read, tensor, size, record.count)
        )  # fmt: skip
        assert np.array_equal(record.positions, told)
        before, after, wanted = (side[tensor].reshape(-1) for side in (base, result, tuned))
        others = np.setdiff1d(np.arange(size), told)
        assert np.array_equal(after[others], before[others])
        if values == "exact":
            assert np.array_equal(after[told], wanted[told])
        else:
            assert (after[told] != before[told]).mean() > 0.5
    for decoder in diff.decoders:
        assert all(len(diff.chunks[at].streams) == 1 for at in decoder.chunks)  # values, and nothing of positions


def test_only_magnitudes_need_the_base():
    base, tuned = pair()
    small, drawn = (diffpack.extract(base, tuned, rule=name, density=0.1) for name in ("smallest", "random 1"))
    for diff in (small, drawn):
        diffpack.verify(diff)
        assert diffpack.stats(diff).diffs[0].changed == 6007
    with pytest.raises(BaseNeededError, match="the base tells"):
        _ = small["w"].positions
    assert np.array_equal(drawn["w"].positions, drawn.against(base)["w"].positions)
    other = {**base, "w": base["w"][::-1].copy()}
    with pytest.raises(WrongBaseError):
        diffpack.load(other, small)


def test_what_cannot_be_told_stays_exact():
    base, tuned = model(), tune(model(), 0.3)
    tuned["new"] = np.ones(5, np.float32)
    diff = diffpack.extract(base, tuned, rule="random 3", density=0.05, values="f16")
    result = diffpack.load(base, diff)
    floats = {name for name, record in diff.items() if record.coding[0] == "rule"}
    assert floats
    assert bits({name: result[name] for name in tuned if name not in floats}) == bits(
        {name: tuned[name] for name in tuned if name not in floats}
    )


def test_a_tensor_without_a_count_is_kept_whole():
    base, tuned = pair()
    diff = diffpack.extract(base, tuned, rule="smallest", counts={"w": 5})
    result = diffpack.load(base, diff)
    assert np.array_equal(result["b"], tuned["b"])
    assert int((result["w"] != base["w"]).sum()) == diff["w"].count == 5
    assert diff.manifest.recipe["select"] == "smallest, 5 words"


def test_large_tensors_are_cut_and_many_share_a_chunk():
    rng = np.random.default_rng(0)
    base = {f"s{at}": rng.standard_normal(50).astype(np.float32) for at in range(40)}
    base["w"] = rng.standard_normal(1_200_000).astype(np.float32)
    tuned = {name: array + np.float32(0.5) for name, array in base.items()}
    diff = diffpack.extract(base, tuned, rule="smallest", density=0.5, values="f32")
    assert len(diff.manifest.groups[0].ends) > 2
    diffpack.verify(diff, base)
    result = diffpack.load(base, diff)
    assert sum(int((result[name] != base[name]).sum()) for name in base) == 600_000 + 40 * 25


def test_operations_take_such_diffs_or_refuse_them():
    base, tuned = pair()
    small = diffpack.extract(base, tuned, rule="smallest", density=0.1, values="f32")
    drawn = diffpack.extract(base, tuned, rule="random 2", density=0.1, values="f32")
    for operation in (lambda: diffpack.compose([small, drawn]), lambda: diffpack.invert(small, base)):
        with pytest.raises(DiffpackError, match="lossy"):
            operation()
    merged = diffpack.merge([small, drawn], base=base, method="linear")
    sums = diffpack.load(base, merged.diff if hasattr(merged, "diff") else merged)
    parts = [diffpack.load(base, diff) for diff in (small, drawn)]
    for name in base:
        moved = sum((part[name] - base[name]).astype(np.float64) for part in parts)
        found = sums[name] - base[name]
        assert np.allclose(found, moved, atol=1e-5) or np.allclose(found, moved / 2, atol=1e-5)
    counted = diffpack.compare(small, drawn, base).total
    assert (counted.first, counted.second) == (6007, 6007)
    assert 400 < counted.both < 800
    with pytest.raises(BaseNeededError):
        diffpack.compare(small, drawn)
    onto = {**base, "more": np.ones(3, np.float32)}
    carried = diffpack.rebase(small, onto, base=base)
    assert np.array_equal(diffpack.load(onto, carried.diff)["w"], parts[0]["w"])


def test_the_command_line_makes_and_shows_them(tmp_path):
    from safetensors.numpy import save_file

    for name, tensors in zip(("base", "tuned"), pair(), strict=True):
        save_file(tensors, tmp_path / f"{name}.safetensors")
    made = CliRunner().invoke(
        cli, ["extract", "--base", f"{tmp_path}/base.safetensors", "--tuned", f"{tmp_path}/tuned.safetensors",
              "-o", f"{tmp_path}/a.dpk", "--rule", "smallest", "--density", "1%", "--values", "f16"],
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    shown = CliRunner().invoke(cli, ["inspect", f"{tmp_path}/a.dpk"])
    assert "rule(smallest)/f16" in shown.stdout
    assert "need the base" in shown.stdout
    assert "smallest, density 0.01" in shown.stdout
