"""What a scan keeps of changes: every position and step, in a few bytes each."""

from __future__ import annotations

import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffpack.checkpoints import open_checkpoint
from diffpack.extraction.scan.kept_changes import PAGE_WORDS, Gathered, KeptChanges, lowest
from diffpack.extraction.scan.pairs import pair_up
from diffpack.extraction.scan.scan import KEPT_DENSITY, scan, scan_run
from diffpack.tensors.dtypes import DTYPES
from diffpack.tensors.info import BLOCK_WORDS
from diffpack.tensors.rename import Rename
from tests.tools.models import write_safetensors

WORDS = 5 * PAGE_WORDS + 17
EDGES = [0, 1, PAGE_WORDS - 1, PAGE_WORDS, PAGE_WORDS + 1, 2 * PAGE_WORDS, 4 * PAGE_WORDS, WORDS - 1, WORDS]
PLACES = st.one_of(st.integers(0, WORDS), st.sampled_from(EDGES))


@given(st.sets(PLACES.filter(lambda place: place < WORDS), max_size=60), PLACES, PLACES, st.integers(0, 60))
def test_positions_come_back_by_number_and_by_place(places, low, high, number):
    positions = np.array(sorted(places), np.int64)
    gathered = Gathered(WORDS, DTYPES["BF16"])
    for start in range(0, WORDS, 3 * PAGE_WORDS // 2):
        own = positions[(positions >= start) & (positions < start + 3 * PAGE_WORDS // 2)]
        gathered.add(own, own.astype(np.int16))
    kept = gathered.kept()
    assert kept.size == positions.size
    assert np.array_equal(kept.positions(), positions)
    assert np.array_equal(kept.positions(number, number + 7), positions[number : number + 7])
    assert kept.before(low) == np.searchsorted(positions, low)
    start, stop = sorted((low, high))
    assert np.array_equal(kept.between(start, stop), positions[(positions >= start) & (positions < stop)])
    assert np.array_equal(kept.steps, positions.astype(np.int16))


def test_a_tensor_of_one_page_needs_no_pages():
    positions = np.array([0, 5, PAGE_WORDS - 1])
    kept = KeptChanges(lowest(positions), np.ones(3, np.int16))
    assert np.array_equal(kept.positions(), positions)
    assert [kept.before(word) for word in (0, 1, 5, 6, PAGE_WORDS - 1, PAGE_WORDS)] == [0, 1, 1, 2, 2, 3]


def pair(folder, shapes, density):
    rng = np.random.default_rng(0)
    base = {str(at): rng.standard_normal(shape).astype(ml_dtypes.bfloat16) for at, shape in enumerate(shapes)}
    tuned = {}
    for name, entries in base.items():
        moved = rng.random(entries.shape) < density
        tuned[name] = np.where(moved, entries * np.float32(1.01) + np.float32(0.01), entries).astype(entries.dtype)
    paths = [write_safetensors(folder / f"{side}.safetensors", own) for side, own in (("base", base), ("tuned", tuned))]
    opened = [open_checkpoint(path) for path in paths]
    return base, tuned, opened, pair_up(opened[0].tensors, opened[1].tensors, Rename()).pairs


SHAPES = {"large": [(3 * BLOCK_WORDS + 100,)], "small": [(64, 64)] * 10 + [(0,), (1,), (300, 300)]}


@pytest.mark.parametrize("density", [0, 0.01, 0.05, 0.1, 1])
@pytest.mark.parametrize("shapes", SHAPES)
def test_scans_together_find_what_each_alone_and_a_comparison_find(tmp_path, shapes, density):
    base, tuned, opened, pairs = pair(tmp_path, SHAPES[shapes], density)
    alone = [scan(own, *opened) for own in pairs]
    for one, other, own in zip(alone, scan_run(pairs, *opened), pairs, strict=True):
        before, after = (side[own.name].reshape(-1).view(np.uint16) for side in (base, tuned))
        moved = np.flatnonzero(before != after)
        assert one.changed == other.changed
        assert one.count == moved.size
        assert (one.digest, one.base_digest) == (other.digest, other.base_digest)
        assert (one.kept is None) == (other.kept is None) == (moved.size > before.size * KEPT_DENSITY)
        if one.kept is not None:
            assert other.kept is not None
            assert np.array_equal(one.kept.positions(), moved)
            assert np.array_equal(other.kept.positions(), moved)
            assert np.array_equal(one.kept.steps, other.kept.steps)


@pytest.mark.parametrize("shapes", [[(12 * BLOCK_WORDS,)], [(256, 256)] * 4], ids=["large", "small"])
def test_a_change_takes_two_bytes_and_those_of_its_step(tmp_path, shapes):
    _, _, opened, pairs = pair(tmp_path, shapes, 0.05)
    scan_run(pairs, *opened)
    tracemalloc.start()
    try:
        scans = scan_run(pairs, *opened)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    changes = sum(item.count for item in scans)
    kept = [item.kept for item in scans if item.kept is not None]
    assert len(kept) == len(scans)
    assert sum(own.nbytes for own in kept) <= 4.01 * changes
    assert held <= 4.5 * changes + 4096 * len(scans)
