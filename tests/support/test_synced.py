"""What is renamed to its name is on the disk before, file by file; a disk that fails is told by the output's name."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import diffpack
from diffpack.checkpoints import open_checkpoint
from diffpack.checkpoints.torch_writer import ShardedTorchWriter
from diffpack.errors import DiffpackError, OutputError
from diffpack.support import renames
from diffpack.support.atomic import atomic_file, atomic_folder
from tests.tools.command_line import fails
from tests.tools.models import Arrays, write_safetensors, write_shards

NAMES = [f"{at}.weight" for at in range(4)]


def arrays(seed: int) -> Arrays:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal((64, 32)).astype(np.float32) for name in NAMES}


def torch_shards(folder: Path, source: Path) -> None:
    checkpoint = open_checkpoint(source)
    folder.mkdir()
    writer = ShardedTorchWriter(folder, {"a.bin": NAMES[::2], "b.bin": NAMES[1::2]}, checkpoint.tensors)
    for name in NAMES:
        writer.write(name, 0, np.asarray(checkpoint.words(name)))
    writer.publish()


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A base in each layout, and a diff of it."""
    monkeypatch.chdir(tmp_path)
    base, tuned = arrays(0), arrays(1)
    write_safetensors(tmp_path / "base.safetensors", base)
    write_safetensors(tmp_path / "tuned.safetensors", tuned)
    for name, model in (("base", base), ("tuned", tuned)):
        write_shards(
            tmp_path / name, {f"m-{at}.safetensors": {key: model[key] for key in NAMES[at::2]} for at in (0, 1)}
        )
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "1_Pooling").mkdir()
        (tmp_path / name / "1_Pooling" / "config.json").write_text("{}")
    torch_shards(tmp_path / "base_torch", tmp_path / "base.safetensors")
    diffpack.extract("base.safetensors", "tuned.safetensors", "d.dpk").close()
    diffpack.extract("base", "tuned", "folder.dpk").close()
    for ending in (".h5", ".npz"):
        os.mkdir(f"base{ending}_folder")
        identity = diffpack.extract("base.safetensors", "base.safetensors")
        diffpack.apply("base.safetensors", identity, f"base{ending}_folder/model{ending}")
    return tmp_path


OUTPUTS: dict[str, Callable[[str], object]] = {
    "out.dpk": lambda out: diffpack.extract("base.safetensors", "tuned.safetensors", out).close(),
    "out.safetensors": lambda out: diffpack.apply("base.safetensors", "d.dpk", out),
    "out.bin": lambda out: diffpack.apply("base.safetensors", "d.dpk", out),
    "out.h5": lambda out: diffpack.apply("base.safetensors", "d.dpk", out),
    "out.npz": lambda out: diffpack.apply("base.safetensors", "d.dpk", out),
    "shards/": lambda out: diffpack.apply("base", "folder.dpk", out),
    "shards_of_torch/": lambda out: diffpack.apply("base_torch", "d.dpk", out),
    "hdf5/": lambda out: diffpack.apply("base.h5_folder", "d.dpk", out),
    "npz/": lambda out: diffpack.apply("base.npz_folder", "d.dpk", out),
    "scipy/": lambda out: diffpack.convert("d.dpk", out, to="scipy"),
    "sglang-delta/": lambda out: diffpack.convert("d.dpk", out, to="sglang-delta", base="base.safetensors"),
    "tasks.h5": lambda out: diffpack.convert("d.dpk", out, to="hdf5"),
    "patch.safetensors": lambda out: diffpack.convert("d.dpk", out, to="sparse-safetensors", base="base.safetensors"),
}  # fmt: skip


def identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


@pytest.mark.parametrize("name", OUTPUTS)
def test_every_file_and_folder_is_synced_before_the_output_has_its_name_and_that_after(
    work: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[tuple[int, int], int, bool]] = []
    output = work / name
    fsync = os.fsync

    def seen(descriptor: int) -> None:
        found = os.fstat(descriptor)
        synced.append(((found.st_dev, found.st_ino), found.st_size, output.exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", seen)
    OUTPUTS[name](name)
    parts = [output, *output.rglob("*")]
    assert len(parts) > int(name.endswith("/"))
    for path in parts:
        sizes = [size for key, size, there in synced if key == identity(path) and not there]
        assert sizes, path
        assert path.is_dir() or sizes[-1] == path.stat().st_size, path
    assert synced[-1][0] == identity(work)
    assert synced[-1][2]


def failing(error: int, when: Callable[[os.stat_result], bool]) -> Callable[[int], None]:
    fsync = os.fsync

    def fail(descriptor: int) -> None:
        if when(os.fstat(descriptor)):
            raise OSError(error, os.strerror(error))
        fsync(descriptor)

    return fail


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_folder_that_does_not_come_to_the_disk_is_an_error_that_says_so(
    work: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = identity(work)
    monkeypatch.setattr(os, "fsync", failing(errno.EIO, lambda found: (found.st_dev, found.st_ino) == here))
    before = sorted(os.listdir())
    said = rf"{name.rstrip('/')}: is written, but the folder it is in could not be brought to the disk"
    with pytest.raises(OutputError, match=said) as told:
        OUTPUTS[name](name)
    assert told.value.errno == errno.EIO
    assert sorted({*os.listdir()} - {name.rstrip("/")}) == before
    assert (work / name).exists()


@pytest.mark.parametrize("name", OUTPUTS)
def test_what_does_not_come_to_the_disk_is_not_kept_and_named(
    work: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", failing(errno.EIO, lambda found: found.st_size > 0))
    before = sorted(os.listdir())
    with pytest.raises(DiffpackError, match=rf"{name.rstrip('/')}.*cannot be written.*Input/output error") as told:
        OUTPUTS[name](name)
    assert ".part" not in str(told.value)
    assert sorted(os.listdir()) == before


PLACED = ["out.safetensors", "out.bin", "out.npz", "shards/", "shards_of_torch/", "npz/"]
"""Outputs whose bytes are put at their places (`placed_bytes`)."""


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("name", PLACED)
def test_a_disk_that_takes_nothing_more_is_named(
    work: Path, name: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "pwrite", fail)
    before = sorted(os.listdir())
    with pytest.raises(OutputError, match=rf"{name.rstrip('/')}.*cannot be written: {os.strerror(number)}$") as told:
        OUTPUTS[name](name)
    assert ".part" not in str(told.value)
    assert told.value.errno == number
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES])
def test_systems_that_sync_no_folders_are_fine(tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync = os.fsync

    def none(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", none)
    with atomic_folder(tmp_path / "a", replace=False) as folder:
        (folder / "inside").write_text("1")
    assert (tmp_path / "a" / "inside").read_text() == "1"


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_others_raise(tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", failing(number, lambda _: True))
    with pytest.raises(OSError, match=os.strerror(number)):
        renames.sync_folder(tmp_path)


def test_errors_that_are_not_the_disk_s_stay_as_they_are(tmp_path: Path) -> None:
    for error in (OSError(errno.ECONNRESET, "reset"), OSError(errno.ENOSPC, "full", "/other/file")):
        with pytest.raises(OSError, match=r"reset|full") as told, atomic_file(tmp_path / "a", replace=False):
            raise error
        assert told.value is error
    with (
        pytest.raises(OutputError, match=r"b/c: cannot be written: full$"),
        atomic_folder(tmp_path / "b", replace=False) as folder,
    ):
        raise OSError(errno.ENOSPC, "full", str(folder / "c"))
    assert os.listdir(tmp_path) == []


def test_a_failing_disk_is_one_line_on_the_command_line(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", failing(errno.EIO, lambda found: found.st_size > 0))
    args = ("extract", "--base", "base.safetensors", "--tuned", "tuned.safetensors", "-o", "new.dpk")
    said = fails(1, "new.dpk: cannot be written: Input/output error", *args)
    assert "hint: nothing was kept" in said


def test_a_diff_that_cannot_be_read_is_named(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    diff = diffpack.open("d.dpk")

    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(DiffpackError, match=r"d.dpk: cannot be read: Input/output error"):
        diffpack.verify(diff)


def test_a_side_file_that_cannot_be_read_is_named(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Path.read_bytes

    def fail(path: Path) -> bytes:
        if path.name == "config.json":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(DiffpackError, match=r"config.json: cannot be read: Input/output error"):
        diffpack.extract("base", "tuned", "new.dpk")
    assert not Path("new.dpk").exists()
