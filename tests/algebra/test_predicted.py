"""Exact diffs whose steps factors predict, in operations: an exact diff like any other, to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import diffpack
from diffpack.errors import BaseNeededError, CorruptFileError
from tests.tools.low_rank import few_directions, matrices
from tests.tools.models import Arrays, bits

BASE = matrices(dtype=ml_dtypes.bfloat16)
TUNED = few_directions(BASE)
FURTHER = few_directions(TUNED, seed=7)
MATRICES = ("body.0.weight", "body.1.weight", "head.weight")


def predicted(base: Arrays = BASE, tuned: Arrays = TUNED) -> diffpack.Diff:
    diff = diffpack.extract(base, tuned, profile="smallest")
    assert all(diff[name].rank for name in MATRICES)
    return diff


def plain(base: Arrays = BASE, tuned: Arrays = TUNED) -> diffpack.Diff:
    return diffpack.extract(base, tuned, positions="gaps")


def test_its_steps_are_those_from_the_base() -> None:
    bound, expected = predicted().against(BASE), plain()
    for name in MATRICES:
        assert bound[name].exact
        assert np.array_equal(bound[name].positions, expected[name].positions)
        assert np.array_equal(bound[name].values, expected[name].values)
        assert bound[name].count == expected[name].count
        found, right = bound[name].differences(), expected[name].differences(BASE[name])
        assert all(map(np.array_equal, found, right))


def test_without_the_base_its_factors_are_there_and_its_steps_are_not() -> None:
    diff = predicted()
    record = diff["body.0.weight"]
    assert record.factors is not None
    near = record.factors.change(0, record.info.words).reshape(record.shape)
    moved = TUNED["body.0.weight"].astype(np.float32) - BASE["body.0.weight"].astype(np.float32)
    assert np.linalg.norm(near - moved) < 0.1 * np.linalg.norm(moved)
    with pytest.raises(BaseNeededError):
        list(record.changes())
    assert diffpack.verify(diff).result is None  # what can be checked is


def test_it_can_be_inverted_and_composed() -> None:
    first, second = predicted(), predicted(TUNED, FURTHER)
    back = diffpack.invert(first, base=BASE)
    assert bits(diffpack.load(TUNED, back)) == bits(BASE)
    whole = diffpack.compose([first, second], base=BASE)
    assert whole.manifest.exact
    assert bits(diffpack.load(BASE, whole)) == bits(FURTHER)


@pytest.mark.parametrize("order", ["same", "other"])
def test_new_names_give_the_same_bits(order: str) -> None:
    diff = predicted()
    new = {name: f"{'m' if order == 'same' else 'zyxwv'[at]}.{name}" for at, name in enumerate(sorted(BASE))}
    done = diffpack.rename(diff, new.__getitem__, base=BASE)
    assert done.notes == ()
    assert any(record.rank for record in done.diff.values()) == (order == "same")
    assert done.diff.manifest.exact
    assert bits(diffpack.load(BASE, done.diff)) == bits({new[name]: array for name, array in TUNED.items()})


def test_it_is_merged_rebased_and_compared_by_its_changes() -> None:
    one, other = predicted(), plain()
    onto = few_directions(BASE, seed=3)
    merged = [diffpack.merge([diff, plain(tuned=FURTHER)], base=BASE) for diff in (one, other)]
    assert bits(diffpack.load(BASE, merged[0])) == bits(diffpack.load(BASE, merged[1]))
    rebased = [diffpack.rebase(diff, onto, base=BASE).diff for diff in (one, other)]
    assert bits(diffpack.load(onto, rebased[0])) == bits(diffpack.load(onto, rebased[1]))
    compared = [diffpack.compare(diff, plain(tuned=FURTHER), base=BASE) for diff in (one, other)]
    assert compared[0].tensors == compared[1].tensors


@pytest.mark.parametrize("to", ["hdf5", "peft-lora"])
def test_other_formats_get_its_changes(to: str, tmp_path: Path) -> None:
    options = {"rank": "8", "tolerance": "1", "others": "leave"} if to == "peft-lora" else {}
    written = []
    for kind, diff in (("one", predicted()), ("other", plain())):
        out = tmp_path / kind
        diffpack.convert(diff, out, to=to, base=BASE, options=options)
        written.append(out)
    if to == "hdf5":
        found = [diffpack.load(BASE, diffpack.convert(path, from_="hdf5", base=BASE).diff) for path in written]
        assert bits(found[0]) == bits(found[1]) == bits(TUNED)
    else:
        names = [sorted(path.name for path in folder.iterdir()) for folder in written]
        assert names[0] == names[1]
        assert all((written[0] / name).read_bytes() == (written[1] / name).read_bytes() for name in names[0])


def test_a_damaged_factor_is_told(tmp_path: Path) -> None:
    path = tmp_path / "d.dpk"
    diffpack.extract(BASE, TUNED, path, profile="smallest").close()
    data = bytearray(path.read_bytes())
    data[40] ^= 1  # in the first chunks: scales or factors
    path.write_bytes(data)
    with pytest.raises(CorruptFileError):
        diffpack.load(BASE, path)
    with pytest.raises(CorruptFileError):
        diffpack.verify(path)


def test_stats_say_what_factors_take() -> None:
    counted: Any = diffpack.stats(predicted()).diffs[0]
    assert 0 < counted.factor_bytes < counted.nbytes
