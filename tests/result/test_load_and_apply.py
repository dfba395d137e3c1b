"""Results in memory and in files, and what is said of them."""

from __future__ import annotations

import numpy as np
import pytest

import diffpack
from diffpack.errors import UsageError, WrongBaseError
from tests.tools import ROOT
from tests.tools.models import tune

BASE, TUNED = {"w": np.zeros(64, np.float32)}, {"w": np.ones(64, np.float32)}


def test_torch_tensors_in_and_out():
    torch = pytest.importorskip("torch")
    base = {"w": torch.randn(20, 10, generator=torch.Generator().manual_seed(0)).bfloat16(), "n": torch.tensor(3)}
    tuned = {"w": base["w"].clone(), "n": base["n"]}
    tuned["w"][3, ::2] += 1
    diff = diffpack.extract(base, tuned)
    restored = diffpack.load(base, diff, framework="torch")
    assert torch.equal(restored["w"], tuned["w"])
    assert restored["w"].dtype == torch.bfloat16
    restored["w"][0, 0] = 5  # writable, and not the base's memory
    assert base["w"][0, 0] != 5


def test_an_unsealed_diff_is_applied_and_says_what_it_arrived_at(tmp_path):
    folder = ROOT / "fixtures" / "v1.1"
    base, diff = folder / "unsealed.base.safetensors", folder / "unsealed.dpk"
    applied = diffpack.apply(base, diff, tmp_path / "out.safetensors")
    expected = diffpack.fingerprint(folder / "unsealed.result.safetensors")
    assert (applied.sealed, applied.fingerprint, applied.exact) == (False, expected, False)
    verified = diffpack.verify(diff, base)
    assert (verified.sealed, verified.result) == (False, expected)
    with pytest.raises(WrongBaseError):
        diffpack.apply(tune(diffpack.load(base, diff), 1.0), diff, tmp_path / "other.safetensors")


def test_frameworks_are_those_there_are():
    with pytest.raises(UsageError, match="numpy or torch"):
        diffpack.load(BASE, diffpack.extract(BASE, TUNED), framework="jax")
