"""How often the bytes of checkpoints are read and hashed."""

from __future__ import annotations

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
