"""How many entries two tasks change in common is what their results differ in from the base, both."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import diffpack
from diffpack.errors import UsageError, WrongBaseError
from diffpack.report.contents import marks, overlap, tasks
from diffpack.report.contents.overlap import overlaps
from diffpack.tensors.dtypes import DTYPES
from diffpack.tensors.info import TensorInfo
from tests.tools import fused
from tests.tools.chains import chains
from tests.tools.low_rank import few_directions, matrices
from tests.tools.models import Arrays, model, tune
from tests.tools.named_tensors import InMemory, some_words

EXACT: list[dict[str, Any]] = [
    {"positions": "gaps"},
    {"positions": "all"},
    {"positions": "levels"},
    {"profile": "smallest"},
]
LOSSY: list[dict[str, Any]] = [
    {"values": "f16"},
    {"values": "int8", "density": 0.1},
    {"rule": "random 3", "density": 0.1},
    {"rule": "largest", "density": 0.1, "values": "f32"},
    {"budget": "30%"},
    {"values": "lowrank", "rank": 2},
]


def words(array: Any) -> Any:
    """What a tensor's entries are compared as: words of as many bits, two for complex numbers."""
    array = np.ascontiguousarray(array).reshape(-1)
    return array.view(f"<u{array.itemsize // (2 if array.dtype.kind == 'c' else 1)}")


def changed(base: Arrays, tuned: Arrays) -> dict[tuple[str, str, tuple[int, ...]], set[int]]:
    """The words of each tensor that are others in the result."""
    return {
        (name, array.dtype.name, array.shape): set(np.flatnonzero(words(array) != words(base[name])).tolist())
        for name, array in tuned.items()
    }


def shared(sets: list[dict[Any, set[int]]]) -> tuple[tuple[int, ...], ...]:
    """The matrix, pair by pair."""
    return tuple(
        tuple(sum(len(one[key] & two[key]) for key in one.keys() & two.keys()) for two in sets) for one in sets
    )


def stored(diff: diffpack.Diff, base: Arrays) -> dict[Any, set[int]]:
    """What `TensorDiff.count` counts: of every word's values those that are not stored as zero."""
    found = {}
    for name, record in diff.against(base).items():
        kept = record.positions
        if record.position_coding.every_word:
            values = record.values
            kept = kept[(values != 0) | np.signbit(values)]
        found[name, record.dtype, record.shape] = set(range(record.info.words)) if record.rank else set(kept.tolist())
    return found


def test_steps_that_factors_predict_are_steps_like_others():
    base = matrices(dtype=ml_dtypes.bfloat16)
    tuned = [few_directions(base, seed=seed) for seed in (1, 2)]
    diffs = [diffpack.extract(base, arrays, profile="smallest") for arrays in tuned]
    assert all(diff["head.weight"].rank and diff["head.weight"].exact for diff in diffs)
    diffs.append(diffpack.extract(base, tuned[0]))
    (found,) = overlaps(diffs, base)
    assert found.both == shared([changed(base, arrays) for arrays in (*tuned, tuned[0])])
    (found,) = overlaps(diffs)
    assert found.names == (diffs[2].name,)
    assert [name for name, _ in found.missing] == [diff.name for diff in diffs[:2]]


def several(seed: int, densities: tuple[float, ...]) -> tuple[Arrays, list[Arrays]]:
    """A model of several kinds of floats, complex numbers and integers, and fine-tunes of it."""
    rng = np.random.default_rng(seed)
    base = model(seed) | {
        "brain": rng.standard_normal(200).astype(ml_dtypes.bfloat16),
        "wide": rng.standard_normal((20, 11)),
        "complex": rng.standard_normal(60).astype(np.complex64),
    }
    tuned = [tune(base, density, seed + at) for at, density in enumerate(densities, 1)]
    for arrays in tuned:
        for name in ("complex", "ids", "brain"):
            where = rng.random(base[name].shape) < 0.4
            arrays[name] = np.where(where, base[name] + base[name].dtype.type(1), base[name])
    return base, tuned


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.tuples(*[st.floats(0, 1)] * 3), st.tuples(*[st.sampled_from(EXACT)] * 3))
def test_pairs_change_what_their_results_say(seed, densities, options):
    base, tuned = several(seed, densities)
    diffs = [diffpack.extract(base, arrays, **chosen) for arrays, chosen in zip(tuned, options, strict=True)]
    (found,) = overlaps(diffs, base)
    assert found.both == shared([changed(base, arrays) for arrays in tuned])
    assert found.names == tuple(diff.name for diff in diffs)
    assert found.missing == ()
    for one, two in combinations(range(3), 2):
        compared = diffpack.compare(diffs[one], diffs[two], base)
        if all(np.array_equal(base[name] == 0, arrays[name] == 0) for arrays in tuned for name in base):  # else -0.0
            assert found.both[one][two] == compared.total.both
            assert found.jaccard(one, two) == compared.total.jaccard


@pytest.mark.parametrize("options", LOSSY, ids=str)
def test_lossy_tasks_change_what_is_stored(options):
    base = matrices()
    tuned = [few_directions(base, seed=seed) for seed in (1, 2)]
    diffs = [diffpack.extract(base, arrays, **options) for arrays in tuned] + [diffpack.extract(base, tuned[0])]
    (found,) = overlaps(diffs, base)
    assert found.both == shared([stored(diff, base) for diff in diffs])
    assert [found.both[at][at] for at in range(3)] == [
        sum(record.count for record in diff.against(base).values()) for diff in diffs
    ]
    assert found.both[0][1] > 0


@settings(max_examples=40, deadline=None)
@given(chains(links=1), chains(links=1), st.integers(0, 2))
def test_tensors_that_are_new_resized_retyped_or_tied_meet_those_of_the_same_shape(first, second, kind):
    """Two results of one base, whatever became of its tensors: as many as two diffs compared have in common."""
    base, one = first
    two = {name: array for name, array in second[1].items() if kind or name in base}
    options = {"allow_removed": True, "rename": ()}
    diffs = [diffpack.extract(base, arrays, **options) for arrays in (one, two, one)]
    assume(not any(diff.manifest.copies for diff in diffs))  # which need the base
    (found,) = overlaps(diffs)
    assert found.both[0][0] == found.both[0][2] == sum(record.count for record in diffs[0].values())
    assert found.both[0][1] == found.both[1][0] == diffpack.compare(diffs[0], diffs[1]).total.both
    assert found.both == shared([stored_without_base(diff) for diff in diffs])


def stored_without_base(diff: diffpack.Diff) -> dict[Any, set[int]]:
    return {
        (name, record.info, record.base): {
            position for position, value in zip(record.positions.tolist(), record.values.tolist(), strict=True) if value
        }
        for name, record in diff.items()
    }


def test_words_of_packed_dtypes_are_compared_as_they_are_packed():
    info = TensorInfo(DTYPES["F4"], (64,))
    base = some_words(info)
    results = [np.where((np.arange(32) >= first) & (np.arange(32) < first + 16), base ^ 3, base) for first in (0, 8)]
    diffs = [diffpack.extract(InMemory({"x": (info, base)}), InMemory({"x": (info, result)})) for result in results]
    (found,) = overlaps(diffs)
    assert found.both == ((16, 8), (8, 16))


@pytest.mark.parametrize("given_base", [True, False])
def test_tensors_meet_by_the_names_of_the_base(given_base):
    base = {f"bert.{name}": array for name, array in model().items()}
    tuned = [tune(base, 0.3, seed) for seed in (1, 2, 3)]
    plain = {name.removeprefix("bert."): array for name, array in tuned[1].items()}
    diffs = [diffpack.extract(base, arrays) for arrays in (tuned[0], plain, tuned[2])]
    assert diffs[1].manifest.rename
    (found,) = overlaps(diffs, base if given_base else None)
    assert found.both == shared([changed(base, arrays) for arrays in tuned])


def test_tied_tensors_count_where_they_are_stored():
    base = model() | {"head": np.zeros((100, 16), np.float32)}
    base["head"] = base["embed"].copy()
    tuned = []
    for seed in (1, 2):
        arrays = tune(base, 0.3, seed)
        arrays["head"] = arrays["embed"]
        tuned.append(arrays)
    diffs = [diffpack.extract(base, arrays) for arrays in tuned]
    assert diffs[0].manifest.aliases
    (found,) = overlaps(diffs)
    once = [changed(base, {name: array for name, array in arrays.items() if name != "head"}) for arrays in tuned]
    assert found.both == shared(once)


def test_tasks_that_are_fused_alike_meet_in_the_fused_tensors():
    base = fused.model()
    tuned = [fused.fused(fused.changed(base, fused.sparse, seed=seed)) for seed in (1, 2)]
    diffs = [diffpack.extract(base, arrays) for arrays in tuned]
    assert diffs[0].manifest.slices
    (found,) = overlaps(diffs, base)
    assert found.both == shared([changed(fused.fused(base), arrays) for arrays in tuned])
    (nothing,) = overlaps(diffs)
    assert (nothing.names, nothing.both) == ((), ())
    assert [name for name, _ in nothing.missing] == [diff.name for diff in diffs]
    assert all("give the base" in why for _, why in nothing.missing)
    # one task that is not fused: all go by their own names, where a fused tensor is new
    mixed = [*diffs, diffpack.extract(base, fused.changed(base, fused.sparse, seed=3))]
    (found,) = overlaps(mixed, base)
    assert found.both[0][1] > diffpack.compare(diffs[0], diffs[1], base).total.both
    assert found.both[0][2] == diffpack.compare(diffs[0], mixed[2], base).total.both


def test_families_are_told_apart_and_those_of_one_are_left_out():
    bases = [model(seed) for seed in range(3)]
    tuned = [[tune(base, 0.2, seed) for seed in (1, 2)] for base in bases]
    diffs = [diffpack.extract(bases[of], tuned[of][at]) for of, at in [(0, 0), (1, 0), (0, 1), (2, 0), (1, 1)]]
    found = overlaps(diffs, bases[1])
    assert [item.base_fingerprint for item in found] == [diff.manifest.base.fingerprint for diff in diffs[:2]]
    assert [item.names for item in found] == [(diffs[0].name, diffs[2].name), (diffs[1].name, diffs[4].name)]
    for of, item in enumerate(found):
        assert item.both == shared([changed(bases[of], arrays) for arrays in tuned[of]])
    assert overlaps([]) == overlaps(diffs[:2]) == overlaps(diffs[0]) == ()


def test_a_base_that_is_none_of_theirs_is_refused():
    base = model()
    diffs = [diffpack.extract(base, tune(base, 0.2, seed)) for seed in (1, 2)]
    with pytest.raises(WrongBaseError, match="not the base of"):
        overlaps(diffs, model(5))


def test_what_needs_the_base_is_missing_without_it():
    base = model()
    tuned = [tune(base, 0.3, seed) for seed in (1, 2, 3)]
    options = [{}, {"positions": "levels", "profile": "smallest"}, {}]
    diffs = [diffpack.extract(base, arrays, **chosen) for arrays, chosen in zip(tuned, options, strict=True)]
    (found,) = overlaps(diffs)
    assert found.both == shared([changed(base, tuned[0]), changed(base, tuned[2])])
    ((name, why),) = found.missing
    assert name == diffs[1].name
    assert "coded against the base" in why
    (whole,) = overlaps(diffs, base)
    assert whole.missing == ()
    assert whole.both == shared([changed(base, arrays) for arrays in tuned])


def test_damaged_files_are_missing_and_files_are_closed_again(tmp_path: Path):
    base = model()
    tuned = [tune(base, 0.3, seed) for seed in range(1, 5)]
    folder = tmp_path / "tasks"
    folder.mkdir()
    for at, arrays in enumerate(tuned):
        diffpack.extract(base, arrays, folder / f"{at}.dpk").close()
    late = folder / "1.dpk"  # a bit of a chunk: its manifest is as it was
    with diffpack.open(late) as diff:
        chunk = diff.chunks[-1]
    data = bytearray(late.read_bytes())
    data[chunk.offset + chunk.nbytes // 2] ^= 1
    late.write_bytes(data)
    (folder / "3.dpk").write_bytes((folder / "3.dpk").read_bytes()[:-9])
    (found,) = overlaps(folder)
    assert [Path(name).name for name in found.names] == ["0.dpk", "2.dpk"]
    assert [Path(name).name for name, _ in found.missing] == ["1.dpk", "3.dpk"]
    assert "digest" in found.missing[0][1]
    assert found.both == shared([changed(base, tuned[0]), changed(base, tuned[2])])
    descriptors = Path("/proc/self/fd")
    if descriptors.is_dir():
        still_open = {path.readlink() for path in descriptors.iterdir() if path.exists()}
        assert still_open.isdisjoint(folder.iterdir())
    given = diffpack.open(folder / "0.dpk")
    overlaps([given, folder / "2.dpk"])
    assert given[next(iter(given))].count  # one that was given stays open


def test_damaged_fused_tasks_are_missing_and_the_others_stay_fused(tmp_path: Path):
    base = fused.model()
    tuned = [fused.fused(fused.changed(base, fused.sparse, seed=seed)) for seed in (1, 2, 3)]
    for at, arrays in enumerate(tuned):
        diffpack.extract(base, arrays, tmp_path / f"{at}.dpk").close()
    with diffpack.open(tmp_path / "0.dpk") as diff:
        chunk = diff.chunks[0]
    data = bytearray((tmp_path / "0.dpk").read_bytes())
    data[chunk.offset] ^= 1
    (tmp_path / "0.dpk").write_bytes(data)
    (found,) = overlaps(tmp_path, base)
    assert [Path(name).name for name, _ in found.missing] == ["0.dpk"]
    assert found.both == shared([changed(fused.fused(base), arrays) for arrays in tuned[1:]])


def test_diffs_whose_names_cannot_be_brought_together_are_missing(monkeypatch: pytest.MonkeyPatch):
    base = model()
    diffs = [diffpack.extract(base, tune(base, 0.3, seed)) for seed in (1, 2, 3)]
    share = tasks.share_names

    def refuses(given, *rest, **options):
        if diffs[1] in given and len(given) > 1:
            raise UsageError("the two cannot be brought together")
        return share(given, *rest, **options)

    monkeypatch.setattr(tasks, "share_names", refuses)
    (found,) = overlaps(diffs)
    assert found.names == (diffs[0].name, diffs[2].name)
    assert found.missing == ((diffs[1].name, "the two cannot be brought together"),)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 400), max_size=6), st.sampled_from([64, 128, 320]))
def test_stretches_hold_every_word_once(sizes, most):
    keys = [(f"t{at}", TensorInfo(DTYPES["F32"], (size,)), None) for at, size in enumerate(sizes)]
    found = list(marks.stretches(keys, most))
    for stretch in found:
        assert 0 < stretch.bits <= most
        taken = [bit for piece in stretch.pieces for bit in range(piece.at, piece.at + piece.stop - piece.start)]
        assert len(set(taken)) == len(taken)
        assert max(taken) < stretch.bits
        assert all(number % 64 == 0 for piece in stretch.pieces for number in (piece.at, piece.start))
    for key in keys:
        pieces = [piece for stretch in found for piece in stretch.pieces if piece.key == key]
        assert [word for piece in pieces for word in range(piece.start, piece.stop)] == list(range(key[1].words))


@pytest.mark.parametrize("options", EXACT, ids=str)
def test_tensors_of_several_stretches_are_decoded_once(options, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(overlap, "stretch_bits", lambda rows: 128)
    monkeypatch.setattr(marks, "_SLICE", 1)
    monkeypatch.setattr(tasks, "_KEPT_BYTES", 0)
    base, tuned = several(7, (0.02, 0.4, 0.9))
    diffs = [diffpack.extract(base, arrays, **options) for arrays in tuned]
    told: list[tuple[str, int, int]] = []
    (found,) = overlaps(diffs, base, threads=2, progress=lambda *item: told.append(item))
    assert found.both == shared([changed(base, arrays) for arrays in tuned])
    total = sum(diff.manifest.result.bytes for diff in diffs)
    assert told[-1] == ("comparing", total, total)
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
