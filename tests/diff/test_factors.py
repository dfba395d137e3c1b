"""What an open diff tells of low-rank factors."""

from __future__ import annotations

import numpy as np

import diffpack
from diffpack.diff.stats import diff_stats
from tests.tools.low_rank import FACTOR_SCALE, by_hand, few_directions, matrices
from tests.tools.models import model, tune


def hand() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in (("a", (20, 16)), ("b", (16, 16)))}


def test_a_file_made_by_hand_says_its_ranks_and_gives_its_result():
    base = hand()
    data, result = by_hand(base)
    diff = diffpack.open(data)
    assert {name: (record.rank, record.coding[1]) for name, record in diff.items()} == {
        "a": (2, "lowrank"),
        "b": (1, "lowrank"),
    }
    loaded = diffpack.load(base, diff)
    assert {name: array.tobytes() for name, array in loaded.items()} == {name: raw[2] for name, raw in result.items()}
    assert (diff.error("a"), diff.error("b")) == (0.25, 0.125)
    factors = diff["b"].factors
    assert factors is not None
    [(left, right)] = factors.pairs()
    assert (left.shape, right.shape, left.dtype, right.dtype) == ((16, 1), (1, 16), np.float32, np.float32)
    assert np.array_equal((left @ right).reshape(-1), factors.change(0, 256))
    assert factors.change(0, 4).tolist() == (FACTOR_SCALE * np.array([2, 4, 6, 8])).tolist()


def test_bytes_of_factors_are_neither_those_of_positions_nor_of_values():
    data, _ = by_hand(hand())
    diff = diffpack.open(data)
    found = diff_stats(diff)
    scales, factors, grid = (chunk.nbytes for chunk in diff.chunks)
    head = 2  # the classes of the one span of the grid
    assert (found.factor_bytes, found.position_bytes, found.value_bytes) == (factors, head, scales + grid - head)
    assert {item.name: (item.rank, item.changed) for item in found.tensors} == {"a": (2, 320), "b": (1, 256)}


def test_diffs_without_factors_have_no_bytes_of_them():
    found = diffpack.stats(diffpack.extract(model(), tune(model()), budget=3000, rank=0)).diffs[0]
    assert found.factor_bytes == 0
    assert {item.rank for item in found.tensors} == {0}


def test_words_are_in_classes_by_rows_and_columns_of_the_tensor_not_of_its_factors():
    base = matrices()
    diff = diffpack.extract(base, few_directions(base), values="lowrank", rank=3)
    record = diff["body.0.weight"]
    assert record.rank == 3
    assert record.factors is not None
    assert diff.contexts("body.0.weight") == ()  # the grid adds nothing, so there is nothing to tell apart
    share = sum(chunk.nbytes for chunk in diff.chunks) - diff.stored_bytes("body.0.weight")
    assert 0 < share < sum(chunk.nbytes for chunk in diff.chunks)


def test_the_errors_of_records_are_known_where_the_diff_has_them():
    base, tuned = model(), tune(model(), 0.2)
    exact = diffpack.extract(base, tuned)
    assert {exact.error(name) for name in exact} == {0.0}
    lossy = diffpack.extract(base, tuned, values="int8")
    errors = [lossy.error(name) for name in lossy]
    assert all(error is not None and 0 < error < 1 for error in errors)
    merged = diffpack.merge([lossy, lossy])
    assert {merged.error(name) for name in merged} == {None}
