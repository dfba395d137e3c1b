"""Diffs are put together by the base they come from, and the links of a chain are one model."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import diffpack
from diffpack.diff.stats import DiffStats, diff_stats
from diffpack.report.families import Family, families_of
from tests.tools.models import model, tune


def link(before: str, after: str | None, name: str = "") -> DiffStats:
    """A diff of 10 bytes that leads from one fingerprint to another, of checkpoints of 100 bytes."""
    return DiffStats(
        name=name or f"{before}-{after}", exact=True, nbytes=10, manifest_bytes=4, factor_bytes=0, position_bytes=1,
        value_bytes=2, layout_bytes=1, side_file_bytes=1, frame_bytes=1, base_fingerprint=before, base_name=None,
        base_bytes=100, base_entries=25, result_fingerprint=after, result_bytes=100, result_entries=25, records=1,
        changed=5, counted=True, removed=0, aliases=0, error=0.0, codings=(), tensors=(),
    )  # fmt: skip


def shown(family: Family) -> list[tuple[str, int, bool]]:
    return [(item.diff.name, item.depth, item.latest) for item in family.members]


def test_a_chain_is_one_model_of_one_base():
    states = [model()]
    for week in range(5):
        states.append(tune(states[-1], 0.05, week))
    diffs = [diffpack.extract(before, after) for before, after in pairwise(states)]
    chain = [diff_stats(diff) for diff in diffs]
    for given_order in (chain, chain[::-1], [chain[2], chain[0], chain[4], chain[1], chain[3]]):
        (family,) = families_of(given_order)
        assert [item.diff for item in family.members] == chain
        assert [item.depth for item in family.members] == [0, 1, 2, 3, 4]
        assert [item.level for item in family.members] == [0, 1, 1, 1, 1]
        assert (family.models, family.versions) == (1, 5)
        assert family.base_fingerprint == diffpack.fingerprint(states[0])
        assert family.base_bytes == sum(array.nbytes for array in states[0].values())


def test_forks_are_models_of_their_own_and_bases_are_families():
    diffs = [link("B", "1"), link("1", "2"), link("2", "3a"), link("2", "3b"), link("C", "9"), link("B", None)]
    first, second = families_of(diffs)
    assert shown(first) == [
        ("B-1", 0, False), ("1-2", 1, False), ("2-3a", 2, True), ("2-3b", 2, True), ("B-None", 0, True),
    ]  # fmt: skip
    assert [item.level for item in first.members] == [0, 1, 2, 2, 0]
    assert (first.models, first.versions) == (3, 5)
    assert shown(second) == [("C-9", 0, True)]


def test_an_undo_makes_no_endless_circle():
    family, *others = families_of([link("B", "T"), link("T", "B"), link("B", "U"), link("N", "N")])
    assert shown(family) == [("B-T", 0, False), ("T-B", 1, True), ("B-U", 0, True)]
    assert [shown(item) for item in others] == [[("N-N", 0, True)]]


def test_two_diffs_with_one_result_are_continued_once():
    (family,) = families_of([link("B", "T", "first"), link("B", "T", "again"), link("T", "V")])
    assert shown(family) == [("first", 0, False), ("T-V", 1, True), ("again", 0, True)]


@given(st.lists(st.tuples(st.sampled_from("abcdefg"), st.sampled_from("abcdefgh")), max_size=12))
def test_each_diff_is_in_one_family_after_the_one_it_continues(pairs):
    diffs = [link(before, None if after == "h" else after, str(at)) for at, (before, after) in enumerate(pairs)]
    found = families_of(diffs)
    assert sorted(item.diff.name for family in found for item in family.members) == sorted(map(str, range(len(pairs))))
    assert len({family.base_fingerprint for family in found}) == len(found)
    for family in found:
        before: list[DiffStats] = []
        continued = {item.parent.name for item in family.members if item.parent is not None}
        for item in family.members:
            if item.parent is None:
                assert item.diff.base_fingerprint == family.base_fingerprint
                assert (item.depth, item.level) == (0, 0)
            else:
                assert item.parent in before
                assert item.parent.result_fingerprint == item.diff.base_fingerprint
                assert item.depth >= item.level > 0
            assert item.latest == (item.diff.name not in continued)
            before.append(item.diff)


def test_costs_are_those_the_papers_print():
    """Nine tasks of 0.5 % are 1.045 x the base, full copies 9 x, adapters of 3.6 % 1.32 x."""
    nine = [link("B", str(at)) for at in range(9)]
    (family,) = families_of(nine)
    assert family.weight_bytes == 81  # nine files of ten bytes, a side file of one in each
    assert family.stored_bytes == 181
    assert family.multiple(family.stored_bytes) == pytest.approx(1.81)
    assert family.full_bytes == 900
    assert family.adapter_bytes == 100 + 9 * 4
    assert family.multiple(family.adapter_bytes) == pytest.approx(1.36)


@pytest.mark.parametrize("nbytes", [1, 33, 60, 99, 100, 101])
def test_break_even_is_the_first_count_at_which_diffs_are_less(nbytes):
    item = link("B", "T")
    size = {"nbytes": nbytes + 1, "value_bytes": nbytes}
    (family,) = families_of([DiffStats(**{**vars(item), **size, "result_fingerprint": str(at)}) for at in range(3)])
    less = [count for count in range(1, 500) if 100 + count * nbytes < count * 100]
    assert family.break_even == (less[0] if less else None)


def test_numbers_are_numbers_of_python():
    (family,) = families_of([diff_stats(diffpack.extract(model(), tune(model())))])
    for name in ("nbytes", "weight_bytes", "full_bytes", "adapter_bytes", "base_entries", "break_even"):
        assert not isinstance(getattr(family, name), np.generic), name
