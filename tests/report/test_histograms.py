"""Steps and magnitudes are those of the applied results, counted by numpy in another way."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import diffpack
from diffpack.errors import WrongBaseError
from diffpack.report.contents import histograms as module
from diffpack.report.contents.bins import Bins, Histogram
from diffpack.report.contents.histograms import DiffHistograms, histograms
from diffpack.tensors.dtypes import DTYPES, from_numpy, ordered
from diffpack.tensors.info import TensorInfo
from diffpack.tensors.reference import Reference
from tests.report.test_overlap import EXACT, LOSSY, several, words
from tests.tools.chains import chains
from tests.tools.low_rank import few_directions, matrices
from tests.tools.models import Arrays, model, tune
from tests.tools.named_tensors import InMemory, some_words


def power_below(number: float | int) -> int:
    """The largest power of two that is not above a number, in exact arithmetic."""
    exact = Fraction(number)
    at = exact.numerator.bit_length() - exact.denominator.bit_length()
    return at if Fraction(2) ** at <= exact else at - 1


def expected(values: list[Any], first: int | None = None) -> Histogram:
    """A histogram of magnitudes, number by number."""
    finite = [abs(value) for value in values if math.isfinite(value)]
    counts = Counter(power_below(value) for value in finite if value)
    low = first if first is not None else min(counts, default=0)
    high = max(counts, default=low - 1)
    bins = range(low, high + 1) if counts else range(0)
    edges = tuple(2.0**at if at < 1024 else math.inf for at in (*bins, high + 1)) if counts else ()
    return Histogram(edges, tuple(counts[at] for at in bins), len(values) - len(finite), finite.count(0))


def results(base: Arrays, tuned: Arrays) -> tuple[Histogram, Histogram]:
    """Both of an exact diff, from the tensors before and after."""
    steps: list[int] = []
    magnitudes: list[float] = []
    for name, array in tuned.items():
        dtype = from_numpy(array.dtype)
        assert dtype is not None
        before = base.get(name)
        reference = words(before) if before is not None else np.zeros_like(words(array))
        different = np.flatnonzero(reference != words(array))
        half = 1 << (dtype.word_bits - 1)
        old, new = (ordered(flat[different], dtype).tolist() for flat in (reference, words(array)))
        if before is not None:
            steps += [(b - a + half) % (2 * half) - half for a, b in zip(old, new, strict=True)]
        if dtype.arithmetic:
            wide = np.float64 if dtype.name == "F64" else np.float32
            flat = [np.asarray(part).view(array.dtype).astype(wide) for part in (reference, words(array))]
            with np.errstate(all="ignore"):
                magnitudes += (flat[1] - flat[0])[different].tolist()
    return expected(steps, 0), expected(magnitudes)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.floats(0, 1), st.sampled_from(EXACT))
def test_exact_diffs_move_as_their_results_say(seed, density, options):
    base, (tuned,) = several(seed, (density,))
    tuned["head"] = np.random.default_rng(seed).standard_normal((4, 9)).astype(np.float32)
    tuned["scale"] = np.array(np.nan, np.float32)
    tuned["wide"][0, 0] = -np.inf
    diff = diffpack.extract(base, tuned, **options)
    (found,) = histograms(diff, base)
    steps, magnitudes = results(base, tuned)
    assert found == DiffHistograms(diff.name, steps, magnitudes)
    assert magnitudes.not_finite == 2
    changed = sum(record.count for record in diff.against(base).values() if record.info.dtype.arithmetic)
    assert sum(magnitudes.counts) + magnitudes.zero + magnitudes.not_finite == changed


@pytest.mark.parametrize("options", LOSSY, ids=str)
def test_lossy_values_have_the_magnitudes_that_are_stored(options):
    base = matrices()
    tuned = few_directions(base)
    diff = diffpack.extract(base, tuned | {"ids": base["ids"] + 3}, **options)
    (found,) = histograms([diff], base)
    records = diff.against(base)
    values = []
    for record in records.values():
        if not record.info.dtype.arithmetic:
            continue
        kept = record.differences().values
        if record.rank:  # every word, be its value zero
            kept = np.zeros(record.info.words, kept.dtype)
            kept[record.positions] = record.differences().values
        elif record.position_coding.every_word:
            kept = kept[(kept != 0) | np.signbit(kept)]
        values += kept.tolist()
    assert found.magnitudes == expected(values)
    lossy = not any(record.exact for record in records.values() if record.info.dtype.arithmetic)
    if lossy:
        assert found.steps == Histogram((1.0, 2.0, 4.0), (0, 32))  # the integers'
    assert found.why == ""
    (alone,) = histograms([diff])
    assert (alone == found) == (lossy and options.get("rule") != "largest")


def test_steps_that_factors_predict_are_those_from_the_base():
    base = matrices(dtype=ml_dtypes.bfloat16)
    tuned = few_directions(base)
    diffs = [diffpack.extract(base, tuned, profile=profile) for profile in ("smallest", "compact")]
    assert diffs[0]["head.weight"].rank
    predicted, plain = histograms(diffs, base)
    assert (predicted.steps, predicted.magnitudes) == (plain.steps, plain.magnitudes) == results(base, tuned)


def test_lossy_values_alone_have_no_steps():
    base = matrices()
    tuned = few_directions(base) | {"head": np.ones(3, np.float32)}
    diff = diffpack.extract(base, tuned, values="f16")
    (found,) = histograms(diff)
    assert (found.steps, found.why) == (None, "none of its values are steps from a base tensor")
    assert found.magnitudes is not None
    assert sum(found.magnitudes.counts) + found.magnitudes.zero == sum(record.count for record in diff.values())


@settings(max_examples=60, deadline=None)
@given(chains(links=1))
def test_what_is_new_resized_retyped_or_tied_moves_from_its_reference(states):
    base, tuned = states
    diff = diffpack.extract(base, tuned, allow_removed=True, rename=())
    assume(not diff.manifest.copies)
    (found,) = histograms(diff, base)
    steps: list[int] = []
    magnitudes: list[float] = []
    result = diffpack.load(base, diff)
    for name, record in diff.items():
        before = words(base[name]) if record.base is not None else None
        reference = Reference(record.info, record.base, before)[0 : record.info.words]
        after = words(result[name])
        different = np.flatnonzero(reference != after)
        if record.base is not None:
            steps += record.values[record.values != 0].tolist()
        if record.info.dtype.arithmetic:
            wide = np.float64 if record.dtype == "F64" else np.float32
            with np.errstate(all="ignore"):
                change = after.view(tuned[name].dtype).astype(wide) - reference.view(tuned[name].dtype).astype(wide)
            magnitudes += change[different].tolist()
    assert found.magnitudes in (expected(magnitudes), None if diff else expected([]))
    assert (found.magnitudes is None) == (len(diff) > 0 and not any(r.info.dtype.arithmetic for r in diff.values()))
    assert found.steps == (expected(steps, 0) if not diff or any(r.base for r in diff.values()) else None)


def test_without_the_base_steps_are_there_and_magnitudes_as_far_as_they_are():
    base, tuned = model(), tune(model(), 0.3)
    tuned["head"] = np.full(12, 0.75, np.float32)
    diff = diffpack.extract(base, tuned)
    (whole,) = histograms(diff, base)
    (found,) = histograms(diff)
    assert found.steps == whole.steps
    assert found.magnitudes == Histogram((0.5, 1.0), (12,))  # the new one's
    floats = sum(record.info.dtype.arithmetic for record in diff.values())
    assert (
        found.why
        == f"magnitudes: {floats - 1} of {floats} tensors are stored as steps, which need the base; give the base"
    )
    small = diffpack.extract(base, tune(base, 0.3), positions="levels", profile="smallest")
    (found,) = histograms(small)
    assert found.magnitudes is None
    assert "tensors are coded against the base" in found.why
    (found,) = histograms(small, base)
    assert (found.steps, found.magnitudes, found.why) == (*results(base, tune(base, 0.3)), "")


def test_of_a_chain_the_first_has_the_base():
    base = model()
    once = tune(base, 0.2, 1)
    diffs = [diffpack.extract(base, once), diffpack.extract(once, tune(once, 0.2, 2))]
    first, second = histograms(diffs, base)
    assert first.magnitudes is not None
    assert first.why == ""
    assert second.magnitudes is None
    assert second.steps is not None
    assert second.why.endswith("need the base; its base is another one than tensors in memory")
    with pytest.raises(WrongBaseError, match="not the base of"):
        histograms(diffs[1:], model(9))


def test_a_diff_of_nothing_has_nothing_in_it():
    base = model()
    (found,) = histograms(diffpack.extract(base, base))
    assert found == DiffHistograms(found.name, Histogram((), ()), Histogram((), ()))


def test_packed_entries_have_neither():
    info = TensorInfo(DTYPES["F4"], (64,))
    base = some_words(info)
    diff = diffpack.extract(InMemory({"x": (info, base)}), InMemory({"x": (info, base ^ 1)}))
    (found,) = histograms(diff)
    assert (found.steps, found.magnitudes) == (None, None)
    assert found.why == "none of its values are steps from a base tensor; none of its tensors has float differences"


def test_small_floats_and_complex_numbers_have_steps():
    base = {"small": np.arange(1, 9).astype(ml_dtypes.float8_e4m3fn), "complex": np.ones(4, np.complex64)}
    tuned = {name: array.copy() for name, array in base.items()}
    tuned["small"].view(np.uint8)[:3] += 5
    tuned["complex"].view(np.uint32)[::2] += 1
    (found,) = histograms(diffpack.extract(base, tuned), base)
    assert found.steps == Histogram((1.0, 2.0, 4.0, 8.0), (4, 0, 3))
    assert found.magnitudes is None


def test_bits_alone_that_differ_are_no_magnitude():
    base = {"w": np.zeros(5, np.float32)}
    tuned = {"w": np.array([0, -0.0, -0.0, 1, 2**-149], np.float32)}
    (found,) = histograms(diffpack.extract(base, tuned), base)
    assert found.magnitudes is not None
    assert (found.magnitudes.zero, found.magnitudes.edges[0], found.magnitudes.edges[-1]) == (2, 2.0**-149, 2.0)
    assert sum(found.magnitudes.counts) == 2


def test_damaged_files_say_so_and_the_others_are_counted(tmp_path: Path):
    base = model()
    for at in range(3):
        diffpack.extract(base, tune(base, 0.2, at), tmp_path / f"{at}.dpk").close()
    for at in (0, 1):
        path = tmp_path / f"{at}.dpk"
        with diffpack.open(path) as diff:
            chunk = diff.chunks[0]
        data = bytearray(path.read_bytes())
        data[chunk.offset] ^= 1
        path.write_bytes(data if at else data[:-5])
    told: list[tuple[str, int, int]] = []
    found = histograms(tmp_path, base, progress=lambda *item: told.append(item))
    assert [Path(item.name).name for item in found] == ["0.dpk", "1.dpk", "2.dpk"]
    assert [item.steps is None and item.magnitudes is None for item in found] == [True, True, False]
    assert found[0].why
    assert "digest" in found[1].why
    assert found[2].steps == results(base, tune(base, 0.2, 2))[0]
    assert told[-1][0] == "measuring"
    assert told[-1][1] == told[-1][2]
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)


def test_blocks_and_threads_change_nothing(monkeypatch: pytest.MonkeyPatch):
    base, (tuned,) = several(3, (0.5,))
    diffs = [diffpack.extract(base, tuned, **options) for options in EXACT]
    whole = histograms(diffs, base)
    monkeypatch.setattr(module, "BLOCK_WORDS", 7)
    monkeypatch.setattr(module, "_KEPT_BYTES", 0)
    for threads in (1, 3):
        assert histograms(diffs, base, threads=threads) == whole
    assert len({(item.steps, item.magnitudes) for item in whole}) == 1


@given(st.lists(st.integers(-(2**63), 2**63 - 1) | st.sampled_from([2**63 - 1, -(2**63), 2**53 - 1, 2**54 - 1])))
def test_steps_of_64_bits_fall_where_they_belong(steps):
    bins = Bins()
    bins.add_steps(np.array(steps, np.int64))
    assert bins.histogram(first=0) == expected(steps, 0)


@pytest.mark.parametrize("kind", [np.int8, np.int16, np.int32, np.int64])
def test_the_lowest_number_is_the_farthest_step(kind):
    bins = Bins()
    lowest = np.iinfo(kind).min
    bins.add_steps(np.array([lowest, lowest + 1, -1, 0], kind))
    found = bins.histogram(first=0)
    assert found.edges[-2:] == (float(-int(lowest)), 2 * float(-int(lowest)))
    assert (found.counts[-1], found.counts[-2], found.counts[0], found.zero) == (1, 1, 1, 1)


@given(st.lists(st.floats(width=64)))
def test_floats_fall_where_they_belong(values):
    bins = Bins()
    bins.add_floats(np.array(values, np.float64))
    assert bins.histogram() == expected(values)
