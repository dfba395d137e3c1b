"""A gate tells which diffs are larger than they may be, to the byte."""

from __future__ import annotations

from pathlib import Path

import pytest

import diffpack
from diffpack.errors import UsageError
from diffpack.report.gate import ALL, Gate
from diffpack.report.stats import Stats, stats
from tests.tools.models import model, tune


@pytest.fixture
def found(tmp_path: Path) -> Stats:
    base = model()
    for at in range(3):
        diffpack.extract(base, tune(base, 0.05 * (at + 1), at), tmp_path / f"{at}.dpk")
    return stats(tmp_path, tensors=False)


def test_a_diff_may_have_as_many_bytes_as_the_gate_says_and_none_more(found):
    largest = max(item.nbytes for item in found.diffs)
    assert Gate.of(largest, None).exceeded(found) == ()
    (excess,) = Gate.of(largest - 1, None).exceeded(found)
    assert (excess.name, excess.nbytes, excess.most) == (found.diffs[2].name, largest, largest - 1)
    assert "over" in str(excess)
    assert str(excess).endswith("by 1 bytes")


def test_a_part_is_one_of_the_diffs_own_base(found):
    other = diffpack.extract({"w": model()["encoder.0.weight"]}, {"w": model(1)["encoder.0.weight"]})
    mixed = stats([*found_paths(found), other], tensors=False)
    sizes = {item.name: (item.nbytes, item.base_bytes) for item in mixed.diffs}
    for share in (0.01, 0.1, 0.2, 0.9):
        told = {item.name for item in Gate.of(f"{100 * share}%", None).exceeded(mixed)}
        assert told == {name for name, (nbytes, base) in sizes.items() if nbytes > int(share * base)}


def found_paths(found: Stats) -> list[str]:
    return [item.name for item in found.diffs]


def test_all_together_are_told_last(found):
    assert Gate.of(None, found.nbytes).exceeded(found) == ()
    excesses = Gate.of(1, found.nbytes - 1).exceeded(found)
    assert [item.name for item in excesses] == [*found_paths(found), ALL]
    assert str(excesses[-1]).startswith("all diffs: ")
    assert Gate.of(None, None).exceeded(found) == ()


@pytest.mark.parametrize("wrong", ["1 potato", "-1", "1.5", "1Mb", ""])
def test_what_is_no_size_is_refused(wrong):
    with pytest.raises(UsageError):
        Gate.of(wrong, None)
    with pytest.raises(UsageError):
        Gate.of(None, wrong)
