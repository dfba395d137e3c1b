"""An HDF5 output that cannot be written is no output: whatever fails, the old one stays and the process lives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import diffpack
from diffpack.checkpoints import hdf5_readback
from diffpack.checkpoints.hdf5_readback import WrittenDataset, check_written
from diffpack.checkpoints.hdf5_writer import Hdf5Writer
from diffpack.errors import CheckpointError
from diffpack.support.steady_file import SteadyFile
from tests.tools.hdf5_files import assert_holds, write
from tests.tools.models import write_safetensors
from tests.tools.named_tensors import f32, fill, infos, named

h5py = pytest.importorskip("h5py")

TENSORS = named({f"layer{at}/kernel": f32(40, 30) for at in range(12)} | {"bias": f32(7), "none": f32(0, 3)})
PROGRAM = """
import resource, sys
import numpy as np
import diffpack
from diffpack.errors import CheckpointError

limit, output = int(sys.argv[1]), sys.argv[2]
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    if sys.argv[3] == "apply":
        diffpack.apply("base.h5", "d.dpk", output, force=True, threads=int(sys.argv[4]))
    else:
        diffpack.convert("d.dpk", output, to="hdf5", force=True)
except CheckpointError as error:
    print("told", error)
else:
    print("done")
"""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an HDF5 base, one dataset of it compressed, and a diff."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    base = {f"l{at}/w": rng.standard_normal((50, 100)).astype(np.float32) for at in range(8)}
    with h5py.File("base.h5", "w") as file:
        for name, array in base.items():
            file[name] = array
        file.create_dataset("packed", data=base["l0/w"], compression=4)
        file.attrs["layer_names"] = [b"l0", b"l1"]
    tuned = {name: array * np.float32(1.01) for name, array in base.items()} | {"packed": base["l0/w"] * np.float32(3)}
    write_safetensors(tmp_path / "tuned.safetensors", tuned)
    diffpack.extract("base.h5", "tuned.safetensors", "d.dpk").close()
    return tmp_path


@pytest.mark.parametrize("what", ["apply", "convert"])
def test_a_full_disk_ends_in_an_error_and_leaves_the_old_file(work, what):
    """The limit on a file's size is met in every part of the work: data, attributes, the flush when it is closed."""
    seen = set()
    output = Path("out.h5")
    for limit in (1, 600, 20_000, 90_000, 130_000, 165_000, 185_000, 300_000):
        old = b"old" if limit % 2 else None
        output.unlink(missing_ok=True)
        if old is not None:
            output.write_bytes(old)
        before = sorted(os.listdir())
        command = [sys.executable, "-c", PROGRAM, str(limit), str(output), what, "2" if limit > 100_000 else "1"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), limit
        if done.stdout == "done\n":
            seen.add("done")
            continue
        seen.add("told")
        assert "out.h5" in done.stdout
        assert "cannot be written" in done.stdout
        assert "File too large" in done.stdout
        assert sorted(os.listdir()) == before
        assert (output.read_bytes() if output.exists() else None) == old
    assert seen == {"done", "told"}


WRITE = SteadyFile._write


class Failing:
    """A write to the disk that fails the `at`-th time and later works again: what published a damaged file once."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.count = 0

    def __get__(self, file: SteadyFile, _: type[SteadyFile]) -> Callable[[int, memoryview], None]:
        def once(position: int, view: memoryview) -> None:
            self.count += 1
            if self.count == self.at:
                raise OSError(5, "Input/output error")
            WRITE(file, position, view)

        return once


def test_one_write_that_fails_is_enough(tmp_path, monkeypatch):
    old = named({"w": f32(4)})
    path = write(tmp_path / "a.h5", old)
    kept = path.read_bytes()
    writes = Failing(0)
    monkeypatch.setattr(SteadyFile, "_write", writes)
    write(tmp_path / "b.h5", TENSORS).unlink()
    total = writes.count
    assert total > len(TENSORS)
    for at in range(1, total + 1):
        monkeypatch.setattr(SteadyFile, "_write", Failing(at))
        with pytest.raises(CheckpointError, match="Input/output error"):
            write(path, TENSORS)
        assert path.read_bytes() == kept
        assert os.listdir(tmp_path) == ["a.h5"]
    monkeypatch.setattr(SteadyFile, "_write", Failing(total + 1))
    assert_holds(write(path, TENSORS), TENSORS)


def damaged(kind: str) -> Callable[[SteadyFile, int, memoryview], None]:
    """A disk that takes everything and keeps something else."""

    def wrongly(self: SteadyFile, position: int, view: memoryview) -> None:
        if len(view) >= 4800:  # the data of one tensor
            view = memoryview(bytes(view[:-1]) + b"\x55") if kind == "changed" else view[: len(view) // 2]
        WRITE(self, position, view)

    return wrongly


@pytest.mark.parametrize("kind", ["changed", "cut"])
def test_what_does_not_read_back_is_not_published(tmp_path, monkeypatch, kind):
    path = write(tmp_path / "a.h5", named({"w": f32(4)}))
    kept = path.read_bytes()
    monkeypatch.setattr(SteadyFile, "_write", damaged(kind))
    with (
        pytest.raises(CheckpointError, match=r"a\.h5: .* does not read back as it was written; nothing was kept"),
        Hdf5Writer(path, infos(TENSORS), replace=True) as writer,
    ):
        fill(writer, TENSORS, piece=1000)
    assert path.read_bytes() == kept
    assert os.listdir(tmp_path) == ["a.h5"]


def test_an_export_is_read_back_too(work, monkeypatch):
    monkeypatch.setattr(SteadyFile, "_write", damaged("changed"))
    with pytest.raises(
        CheckpointError, match=r"out\.h5: \S*/values does not read back|out\.h5: .*damaged|out\.h5: was not"
    ):
        diffpack.convert("d.dpk", "out.h5", to="hdf5")
    assert not Path("out.h5").exists()


@pytest.mark.parametrize("block", [1, 8, 100, 1 << 20])
def test_reading_back_sees_every_byte_in_blocks_of_any_size(tmp_path, monkeypatch, block):
    monkeypatch.setattr(hdf5_readback, "_BLOCK_BYTES", block * 8)
    rng = np.random.default_rng(0)
    arrays = {
        "cube": rng.standard_normal((5, 4, 3)), "line": rng.integers(0, 9, 17, np.int8), "one": np.float64(3.5),
        "none": np.zeros((0, 4), np.float32), "big": rng.integers(0, 9, (3, 50)).astype(">i4"),
        "flags": rng.integers(0, 2, 9).astype(bool), "waves": rng.standard_normal(6) + 1j,
    }  # fmt: skip
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            packed = {"chunks": True, "compression": 1} if np.ndim(array) == 2 and np.size(array) else {}
            file.create_dataset(name, data=array, **packed)
    written = {name: WrittenDataset.of(np.asarray(array)) for name, array in arrays.items()}
    check_written(path, "a.h5", written)
    for name, array in arrays.items():
        raw = np.asarray(array)
        for at in range(raw.size):
            wrong = raw.copy()
            wrong.reshape(-1)[at] = not wrong.reshape(-1)[at] if raw.dtype == bool else wrong.reshape(-1)[at] + 1
            with pytest.raises(CheckpointError, match=f"a.h5: {name} does not read back"):
                check_written(path, "a.h5", {name: WrittenDataset.of(wrong)})
    for wrong in (arrays["cube"].reshape(5, 12), arrays["cube"].view("<i8")):
        with pytest.raises(CheckpointError, match="cube does not read back"):
            check_written(path, "a.h5", {"cube": WrittenDataset.of(wrong)})
    with pytest.raises(CheckpointError, match="was not written as it should be"):
        check_written(path, "a.h5", {"missing": written["one"]})


@pytest.mark.parametrize("verb", ["apply", "convert"])
def test_a_signal_in_the_middle_of_the_library_is_only_a_signal(work, verb):
    """It arrives while HDF5 calls back into Python to write: the exception must not arise in there."""
    code = """if True:
        import os, signal, sys
        from diffpack.support.steady_file import SteadyFile
        from diffpack_cli.main import main

        write, left = SteadyFile.write, {"writes": int(sys.argv.pop(1))}

        def interrupted(self, data):
            left["writes"] -= 1
            if not left["writes"]:
                os.kill(os.getpid(), signal.SIGTERM)
                os.kill(os.getpid(), signal.SIGINT)
            return write(self, data)

        SteadyFile.write = interrupted
        main()
    """
    args = {
        "apply": ["apply", "--base", "base.h5", "d.dpk", "-o", "out.h5", "--threads", "1"],
        "convert": ["convert", "d.dpk", "-o", "out.h5"],
    }[verb]
    before = sorted(os.listdir())
    for at in (1, 2, 5, 9):
        done = subprocess.run([sys.executable, "-c", code, str(at), *args], capture_output=True, text=True)
        assert done.returncode in (128 + signal.SIGTERM, 128 + signal.SIGINT), done.stderr
        assert done.stderr == f"diffpack: error: stopped by {signal.Signals(done.returncode - 128).name}\n"
        assert sorted(os.listdir()) == before
