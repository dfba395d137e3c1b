"""A stored zero is added too: it makes -0.0 a 0.0, and whoever writes a lossy diff again must not lose it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import diffpack

CHOICES = [
    {"values": "int8"}, {"values": "ternary"}, {"values": "f16"}, {"values": "f32", "density": 0.01},
    {"values": "int8", "rule": "smallest", "density": 0.1}, {"values": "f16", "rule": "random 3", "density": 0.9},
    {"budget": 700}, {"target_error": 0.01},
]  # fmt: skip


@pytest.fixture(params=CHOICES, ids=lambda choice: "-".join(str(value) for value in choice.values()))
def case(request, tmp_path):
    """A base with negative zeros, a lossy diff of it, the bytes of its result."""
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((64, 64)).astype(np.float32)
    weights[0, :8] = -0.0
    few = rng.random((64, 64)) < 0.02
    tuned = weights + (1e-3 * few * rng.standard_normal((64, 64)) + 1e-7 * rng.standard_normal((64, 64))).astype("f4")
    tuned[0, :4] = -0.0
    base = {"w": weights}
    path = tmp_path / "task.dpk"
    diff = diffpack.extract(base, {"w": tuned}, path, **request.param)
    assert not diff.exact
    return base, path, diffpack.load(base, diff)["w"].tobytes()


@pytest.mark.parametrize("to", ["hdf5", "scipy"])
def test_there_and_back_gives_the_same_bits(case, to, tmp_path):
    pytest.importorskip("h5py" if to == "hdf5" else "scipy")
    base, path, expected = case
    there: Path = tmp_path / ("there.h5" if to == "hdf5" else "there")
    assert diffpack.convert(path, there, to=to, base=base).exact
    back = diffpack.convert(there, tmp_path / "back.dpk", base=base).diff
    assert diffpack.load(base, back)["w"].tobytes() == expected


def test_onto_its_own_base_a_diff_gives_the_same_bits(case):
    base, path, expected = case
    rebased = diffpack.rebase(path, base, base=base).diff
    assert diffpack.load(base, rebased)["w"].tobytes() == expected
