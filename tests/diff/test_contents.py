"""What an open diff tells: its tensors, its counts."""

from __future__ import annotations

import numpy as np
import pytest

import diffpack
from diffpack.errors import WrongBaseError
from tests.tools import ROOT
from tests.tools.models import model, tune


def test_a_diff_is_a_lazy_mapping():
    diff = diffpack.extract(model(), tune(model(), 0.05))
    assert list(diff) == sorted(diff)
    assert "nothing" not in diff
    record = diff["encoder.0.weight"]
    dense = record.to_dense()
    sparse = record.to_scipy()
    assert dense.shape == (48, 32)
    assert sparse.shape == (48, 32)
    assert np.array_equal(sparse.toarray(), dense)
    assert np.array_equal(np.flatnonzero(dense), record.positions)
    assert diff["encoder.0.bias"].to_scipy().shape == (1, 48)
    packed = diffpack.open(ROOT / "fixtures" / "v1.1" / "levels-dtypes.dpk")["packed"]  # 3 x 5 entries of 4 bits
    assert packed.to_scipy().shape == (1, 8)
    assert packed.to_scipy().nnz == packed.count == 8
    with pytest.raises(KeyError):
        diff["nothing"]


def test_stats_count_changes_and_bytes():
    base, tuned = model(), tune(model(), 0.05)
    diffs = [diffpack.extract(base, tuned), diffpack.extract(base, tune(base, 0.9, 7))]
    found = diffpack.stats(diffs, base)
    first = found.diffs[0]
    changed = sum(int((np.asarray(base[name]) != tuned[name]).sum()) for name in base)
    assert first.changed == changed
    assert sum(item.changed for item in first.tensors) == changed
    assert found.nbytes == sum(diff.nbytes for diff in diffs)
    assert found.base_bytes == first.base_bytes == sum(array.nbytes for array in base.values())
    with pytest.raises(WrongBaseError):
        diffpack.stats(diffs, tuned)
