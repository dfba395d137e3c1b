"""A checkpoint of the trainer that cannot be written, or that a signal breaks into, leaves the one before."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from diffpack.errors import CheckpointError  # noqa: E402 - after the check that torch is there
from diffpack.train.loop import fit  # noqa: E402
from tests.tools.killed import ended, fork  # noqa: E402


@pytest.fixture
def write(tmp_path: Path) -> Callable[[], None]:
    """Write a checkpoint of about 80 kB."""
    model: Any = torch.nn.Linear(200, 100)
    resume = fit.Resume(tmp_path / "out.dpk.checkpoint", "identity", resume=False)
    cost = fit.Meter().read()
    return lambda: fit._write(SimpleNamespace(model=model), resume, fit._Place(), cost)


@pytest.mark.parametrize("limit", [10, 600, 5000, 80_000])
def test_a_full_disk_is_told_and_the_old_checkpoint_stays(tmp_path, write, limit):
    write()
    (path,) = tmp_path.iterdir()
    before = path.read_bytes()

    def fail() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        with pytest.raises(CheckpointError, match=r"out\.dpk\.checkpoint: cannot be written: .*File too large"):
            write()

    assert ended(fork(fail)) == 0
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == before


def test_a_signal_while_torch_writes_is_a_signal(tmp_path, write, monkeypatch):
    write()
    (path,) = tmp_path.iterdir()

    class StoppedError(Exception):
        pass

    def stop(*_: object) -> None:
        raise StoppedError

    save = torch.save

    def interrupted(state: object, file: Any) -> None:
        class Interrupting:
            def write(self, data: Any) -> int:
                os.kill(os.getpid(), signal.SIGUSR1)
                for _ in range(1000):
                    pass
                return int(file.write(data))

            def flush(self) -> None:
                file.flush()

        save(state, Interrupting())

    monkeypatch.setattr(torch, "save", interrupted)
    before = signal.signal(signal.SIGUSR1, stop)
    try:
        with pytest.raises(StoppedError):
            write()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert list(tmp_path.iterdir()) == [path]
