"""How often the bytes of checkpoints are read and hashed."""

from __future__ import annotations

import cProfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import diffpack
from diffpack.checkpoints.weights_file import WeightsFile
from tests.tools.models import write_safetensors

WORDS = 1 << 19
"""Two blocks."""


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many words of tensors are read from now on, by the file's name."""
    counts: Counter[str] = Counter()
    plain = WeightsFile.read_words

    def counted(self: WeightsFile, offset: int, count: int, dtype: np.dtype) -> np.ndarray:
        counts[self.path.name] += count
        return plain(self, offset, count, dtype)

    monkeypatch.setattr(WeightsFile, "read_words", counted)
    return counts


def pair(folder: Path, step: int) -> tuple[Path, Path]:
    """A base, and the same with every step-th entry moved."""
    base = np.random.default_rng(0).standard_normal(WORDS).astype(np.float32).reshape(512, -1)
    tuned = base.copy()
    tuned.reshape(-1)[::step] *= np.float32(1.001)
    files = folder / "base.safetensors", folder / "tuned.safetensors"
    for path, array in zip(files, (base, tuned), strict=True):
        write_safetensors(path, {"w": array})
    return files


@pytest.mark.parametrize("profile", ["compact", "portable"])
def test_a_few_changes_are_found_and_stored_in_one_reading(tmp_path, read, profile):
    diffpack.extract(*pair(tmp_path, 101), tmp_path / "d.dpk", profile=profile)
    assert read == {"base.safetensors": WORDS, "tuned.safetensors": WORDS}


def test_many_changes_are_read_again_rather_than_kept(tmp_path, read):
    diffpack.extract(*pair(tmp_path, 3), tmp_path / "d.dpk")
    assert read["base.safetensors"] > 1.5 * WORDS


def many(folder: Path, tensors: int) -> tuple[Path, Path]:
    """A base of small square matrices, and the same with a hundredth of the entries moved."""
    base = np.random.default_rng(0).standard_normal((tensors, 64, 64)).astype(np.float32)
    tuned = base.copy()
    tuned.reshape(-1)[::101] *= np.float32(1.001)
    files = folder / f"base{tensors}.safetensors", folder / f"tuned{tensors}.safetensors"
    for path, side in zip(files, (base, tuned), strict=True):
        write_safetensors(path, {f"layers.{at:05d}": array for at, array in enumerate(side)})
    return files


@pytest.mark.parametrize("profile", ["compact", "portable"])
def test_small_square_matrices_are_read_once(tmp_path, read, profile):
    """Also to find out that they are not the base's turned."""
    diffpack.extract(*many(tmp_path, 200), tmp_path / "d.dpk", profile=profile)
    assert read == {f"{side}200.safetensors": 200 * 64 * 64 for side in ("base", "tuned")}


_CALLS = 135
"""Calls of Python functions that a small tensor may take, of 126 that it takes on Python 3.11: they are most of what
18,000 of them cost, with 150 more than three times what the same entries in 20 tensors do."""


def test_a_small_tensor_takes_few_calls(tmp_path):
    def calls(tensors: int) -> int:
        base, tuned = many(tmp_path, tensors)
        profiled = cProfile.Profile(builtins=False)
        profiled.runcall(diffpack.extract, base, tuned, tmp_path / "d.dpk", force=True, threads=1)
        return sum(entry.callcount for entry in profiled.getstats())

    calls(10)  # what is loaded when it is first needed
    assert (calls(600) - calls(200)) / 400 <= _CALLS
