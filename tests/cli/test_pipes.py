"""Pipes: a named one is refused at once, standard input is read no further than it is a diff, and within a limit."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import diffpack
import diffpack_cli.options as options
from diffpack.errors import CheckpointError, DiffpackError
from diffpack.support.pooled_file import PooledFile
from tests.tools.models import write_safetensors

PROGRAM = [sys.executable, "-m", "diffpack_cli"]
NO_FILE = "no regular file"


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_safetensors(tmp_path / "base.safetensors", {"w": np.zeros(64, np.float32)})
    write_safetensors(tmp_path / "tuned.safetensors", {"w": np.ones(64, np.float32)})
    diffpack.extract("base.safetensors", "tuned.safetensors", "d.dpk").close()
    for name in ("p", "p.safetensors", "p.bin", "p.safetensors.index.json"):
        os.mkfifo(name)
    return tmp_path


@pytest.mark.parametrize("pipe", ["p", "p.safetensors", "p.bin", "p.safetensors.index.json"])
@pytest.mark.parametrize(
    "args",
    ["fingerprint {}", "verify {}", "convert {} -o o.dpk", "apply --base {} d.dpk -o o.bin", "merge d.dpk {} -o o.dpk",
     "extract --base {} --tuned tuned.safetensors -o o.dpk", "extract --base base.safetensors --tuned {} -o o.dpk"],
)  # fmt: skip
def test_a_named_pipe_is_refused_at_once(work: Path, args: str, pipe: str) -> None:
    done = subprocess.run([*PROGRAM, *args.format(pipe).split()], capture_output=True, text=True, timeout=20)
    assert done.returncode == 1
    assert f"{pipe}: {NO_FILE}" in done.stderr
    assert not list(Path().glob("o.*"))


def test_a_shard_that_is_a_pipe_is_refused(work: Path) -> None:
    index = '{"metadata": {}, "weight_map": {"w": "p.safetensors"}}'
    Path("m.safetensors.index.json").write_text(index)
    with pytest.raises(CheckpointError, match=r"the shard p\.safetensors is missing"):
        diffpack.open_checkpoint("m.safetensors.index.json")
    Path("m.bin.index.json").write_text(index.replace("p.safetensors", "p.bin"))
    with pytest.raises(CheckpointError, match=r"the shard p\.bin does not exist"):
        diffpack.fingerprint("m.bin.index.json")
    with pytest.raises(CheckpointError, match=f"p: {NO_FILE}"):  # which came there after it was looked for
        PooledFile(Path("p"))


class Endless(io.RawIOBase):
    """A stream that never ends; `given` is how much of it was read."""

    def __init__(self, start: bytes) -> None:
        self.start, self.given = start, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override] # what is handed over
        part = self.start[self.given : self.given + len(buffer)]
        buffer[:] = part + bytes(len(buffer) - len(part))
        self.given += len(buffer)
        return len(buffer)


def test_what_is_no_diff_is_not_read_on(work: Path) -> None:
    stream = Endless(b"no diff")
    assert len(options._read_stdin(io.BufferedReader(stream))) < stream.given <= 1 << 20
    done = subprocess.run(
        ["sh", "-c", f"yes | {' '.join(PROGRAM)} verify -"], capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 11
    assert "standard input: not a diffpack file" in done.stderr


def test_more_than_memory_is_given_is_refused(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "MOST_STDIN_BYTES", 10 << 20)
    stream = Endless(Path("d.dpk").read_bytes())
    with pytest.raises(DiffpackError, match=r"over 10,485,760 bytes.*save the diff in a file"):
        options._read_stdin(io.BufferedReader(stream))
    assert stream.given <= 12 << 20


@pytest.mark.parametrize("size", [0, 1, 7, 8, 100, None])
def test_a_diff_that_ends_early_is_told_and_a_whole_one_is_read(work: Path, size: int | None) -> None:
    data = Path("d.dpk").read_bytes()[:size]
    done = subprocess.run([*PROGRAM, "verify", "-"], input=data, capture_output=True)
    assert done.returncode == (0 if size is None else 11)
    assert size is None or b"standard input: " in done.stderr
