"""Of several runs that make one new output at the same time, one succeeds, and the others say why they do not."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

import diffpack
from diffpack.errors import UsageError
from tests.tools.killed import ended, fork, leftovers
from tests.tools.models import model, tune, write_safetensors

_RUNS = 4


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A base and several diffs of it."""
    base = model()
    write_safetensors(tmp_path / "base.safetensors", base)
    for at in range(_RUNS):
        tuned = write_safetensors(tmp_path / f"{at}.safetensors", tune(base, seed=at + 1))
        diffpack.extract(tmp_path / "base.safetensors", tuned, tmp_path / f"{at}.dpk")
    return tmp_path


@pytest.mark.parametrize("name", ["o.safetensors", "o.bin", "o.h5", "o", "o.dpk", "scipy", "c.h5"])
def test_one_of_several_runs_succeeds(work, name):
    """Where there is a report of progress they wait for one another there: each has seen that nothing is there."""
    gate, output = work / "gate", work / name

    def run(at: int) -> None:
        ready = work / f"ready{at}"

        def wait(*_: object) -> None:
            if not ready.exists():
                ready.touch()
                while not gate.exists():
                    time.sleep(0.001)

        try:
            if name in ("scipy", "c.h5"):
                wait()
                diffpack.convert(work / f"{at}.dpk", output, to="scipy" if name == "scipy" else "hdf5")
            elif name == "o.dpk":
                diffpack.compose(work / f"{at}.dpk", output, progress=wait)
            else:
                diffpack.apply(work / "base.safetensors", work / f"{at}.dpk", output, progress=wait)
            told = "done"
        except UsageError as error:
            told = str(error)
        (work / f"told{at}").write_text(told)

    for _ in range(3):
        children = [fork(lambda at=at: run(at)) for at in range(_RUNS)]
        while not all((work / f"ready{at}").exists() for at in range(_RUNS)):
            time.sleep(0.001)
        gate.touch()
        assert [ended(child) for child in children] == [0] * _RUNS
        told = [(work / f"told{at}").read_text() for at in range(_RUNS)]
        assert told.count("done") == 1
        assert told.count(f"{output}: exists already; use --force to replace it") == _RUNS - 1
        if name.startswith("o") and name != "o.dpk":
            winner = work / f"{told.index('done')}.safetensors"
            assert diffpack.fingerprint(output) == diffpack.fingerprint(winner)
        assert leftovers(work) == []
        for path in (gate, *work.glob("ready*"), *work.glob("told*")):
            path.unlink()
        os.rename(output, work / f"old{os.urandom(4).hex()}")
