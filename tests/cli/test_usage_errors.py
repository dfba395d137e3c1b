"""A mistake on the command line is told at once: before torch, h5py or scipy are loaded, or a checkpoint is opened."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

pytest.importorskip("h5py")
pytest.importorskip("torch")

from tests.tools.mistakes import MISTAKES, MOST_SECONDS, ROUNDS, fill, told


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mistakes")
    fill(folder)
    return folder


@pytest.mark.parametrize("what", MISTAKES)
def test_a_mistake_is_told_before_anything_heavy_is_loaded(at: Path, what: str) -> None:
    before = sorted(at.rglob("*"))
    done = told(what, at)
    assert done.exit_code == 2, done.text
    assert done.loaded == "", what
    assert done.text
    assert "Traceback" not in done.text
    assert sorted(at.rglob("*")) == before


@pytest.mark.parametrize(
    "what",
    ["no option of this name", "a density above 1", "a budget and a density", "an output that exists",
     "apply to what exists", "merge to what exists", "convert to no format", "train with an option of another method",
     "train on a broken file"],
)  # fmt: skip
def test_it_takes_a_moment(at: Path, what: str) -> None:
    """The processor's time, since others may be using it; the clock's is the same where they are not."""
    spent: list[float] = []
    deadline = time.monotonic() + 20
    while len(spent) < ROUNDS or (min(spent) >= MOST_SECONDS and time.monotonic() < deadline):
        spent.append(told(what, at).processor)
    assert min(spent) < MOST_SECONDS, spent
