"""An output is whole or not there, and never in the place of an input."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import diffpack
from diffpack.errors import DiffpackError, UsageError
from diffpack.support.atomic import atomic_file, atomic_folder
from tests.tools.models import write_safetensors

BASE, TUNED = {"w": np.zeros(64, np.float32)}, {"w": np.ones(64, np.float32)}


def test_an_output_that_is_an_input_is_refused(tmp_path, pair):
    base, tuned = pair
    before = base.read_bytes()
    diff = diffpack.extract(base, tuned, tmp_path / "d.dpk")
    for output in (base, tmp_path / "d.dpk"):
        with pytest.raises(UsageError, match="input"):
            diffpack.apply(base, tmp_path / "d.dpk", output, force=True)
    with pytest.raises(UsageError, match="input"):
        diffpack.extract(base, tuned, tuned, force=True)
    link = tmp_path / "link.safetensors"
    link.symlink_to(base)
    with pytest.raises(UsageError, match="input"):
        diffpack.apply(base, diff, link, force=True)
    assert base.read_bytes() == before


def test_no_input_is_overwritten(tmp_path):
    for name, tensors in (("base", BASE), ("tuned", TUNED)):
        (tmp_path / name).mkdir()
        write_safetensors(tmp_path / name / "model.safetensors", tensors)
        (tmp_path / name / "config.json").write_text("{}")
    weights = write_safetensors(tmp_path / "weights.safetensors", TUNED)
    base, tuned = tmp_path / "base", tmp_path / "tuned"
    for output in (base / "config.json", tuned / "config.json", tuned / "model.safetensors", weights):
        before = output.read_bytes()
        with pytest.raises(UsageError, match="also an input"):
            diffpack.extract(base, tuned, output, force=True, budget="1MB", importance=weights)
        assert output.read_bytes() == before
    out = tmp_path / "out"
    out.mkdir()
    diff = diffpack.extract(base, tuned, out / "d.dpk")
    with pytest.raises(UsageError, match="also an input"):
        diffpack.apply(base, diff, out, force=True)
    assert (out / "d.dpk").is_file()


def test_outputs_that_are_no_files_are_refused(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match="a folder; name the file"):
        diffpack.extract(BASE, TUNED, tmp_path / "folder", force=True)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="neither a file nor a folder"):
        diffpack.extract(BASE, TUNED, tmp_path / "pipe", force=True)
    with pytest.raises(DiffpackError, match="no regular file"):
        diffpack.open(tmp_path / "pipe")


def test_a_link_is_followed_and_stays(tmp_path):
    (tmp_path / "real").mkdir()
    real = tmp_path / "real" / "d.dpk"
    link = tmp_path / "link"
    real.write_bytes(b"old")
    link.symlink_to(real)
    with pytest.raises(UsageError, match="exists already"):
        diffpack.extract(BASE, TUNED, link)
    assert real.read_bytes() == b"old"
    diff = diffpack.extract(BASE, TUNED, link, force=True)
    assert link.is_symlink()
    assert not real.is_symlink()
    assert real.read_bytes() == link.read_bytes() != b"old"
    diff.save(link, force=True)
    assert link.is_symlink()
    assert sorted(os.listdir(tmp_path / "real")) == ["d.dpk"]
    assert sorted(os.listdir(tmp_path)) == ["link", "real"]


def test_a_link_to_a_folder_is_followed_and_stays(tmp_path):
    diff = diffpack.extract(BASE, TUNED)
    (tmp_path / "store").mkdir()
    diffpack.apply(BASE, diff, tmp_path / "store" / "model")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "store" / "model", target_is_directory=True)
    (link / "config.json").write_text("{}")
    diffpack.apply(BASE, diff, link, force=True)
    assert link.is_symlink()
    assert sorted(os.listdir(tmp_path / "store")) == ["model"]
    assert sorted(os.listdir(tmp_path / "store" / "model")) == ["model.safetensors"]


def test_a_link_to_nothing_to_a_device_or_in_a_circle_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    for name, target, message in (
        ("nowhere", tmp_path / "nothing", "leads nowhere"),
        ("device", Path(os.devnull), "standard output"),
        ("to pipe", tmp_path / "pipe", "standard output"),
        ("a", tmp_path / "b", "leads nowhere"),
    ):
        (tmp_path / name).symlink_to(target)
        before = sorted(os.listdir(tmp_path))
        for force in (False, True):
            with pytest.raises(UsageError, match=message):
                diffpack.extract(BASE, TUNED, tmp_path / name, force=force)
            with pytest.raises(UsageError, match=message):
                diffpack.apply(BASE, diffpack.extract(BASE, TUNED), tmp_path / name, force=force)
        assert (tmp_path / name).readlink() == target
        assert sorted(os.listdir(tmp_path)) == before


def test_a_link_to_a_file_without_a_name_is_refused(tmp_path):
    with (tmp_path / "gone").open("wb") as file:
        (tmp_path / "gone").unlink()
        (tmp_path / "link").symlink_to(f"/proc/self/fd/{file.fileno()}")
        with pytest.raises(UsageError, match="no name"):
            diffpack.extract(BASE, TUNED, tmp_path / "link", force=True)
    assert sorted(os.listdir(tmp_path)) == ["link"]


def test_an_output_that_comes_up_meanwhile_stays(tmp_path, pair):
    """Two runs that make one new output: the second to finish is refused, whatever it writes."""
    base, tuned = pair
    diff = diffpack.extract(base, tuned, tmp_path / "d.dpk")

    def meanwhile(name: str) -> Callable[..., None]:
        def report(*_: object) -> None:
            path = tmp_path / name
            if path.suffix:
                path.write_text("first")
            else:
                path.mkdir(exist_ok=True)
                (path / "model.safetensors").write_text("first")

        return report

    for name in ("o.safetensors", "o.bin", "o.h5", "o"):
        with pytest.raises(UsageError, match="exists already; use --force"):
            diffpack.apply(base, diff, tmp_path / name, progress=meanwhile(name))
        path = tmp_path / name
        assert (path if path.is_file() else path / "model.safetensors").read_text() == "first"
        diffpack.apply(base, diff, path, force=True, progress=meanwhile(name))
        assert diffpack.fingerprint(path) == diffpack.fingerprint(tuned)
    with pytest.raises(UsageError, match="exists already; use --force"):
        diffpack.extract(base, tuned, tmp_path / "new.dpk", progress=meanwhile("new.dpk"))
    assert (tmp_path / "new.dpk").read_text() == "first"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_name_as_long_as_the_system_takes_is_fine(tmp_path):
    path = tmp_path / ("\N{GRINNING FACE}" * 62 + ".dpk")
    diffpack.extract(BASE, TUNED, path)
    assert diffpack.open(path).exact
    name = "\N{GRINNING FACE}" * 62
    with (
        atomic_folder(tmp_path / name, replace=False) as folder,
        atomic_file(folder / name, replace=False) as file,
    ):
        file.write(b"1")
    assert (tmp_path / name / name).read_bytes() == b"1"


def test_a_failure_while_writing_leaves_nothing(tmp_path, pair, monkeypatch):
    base, tuned = pair
    diff = diffpack.extract(base, tuned)
    before = sorted(path.name for path in tmp_path.iterdir())

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full_disk)
    with pytest.raises(OSError, match="No space left"):
        diffpack.apply(base, diff, tmp_path / "out.safetensors")
    with pytest.raises(OSError, match="No space left"):
        diffpack.apply(base, diff, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_an_interrupted_extract_leaves_nothing(tmp_path, pair):
    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        diffpack.extract(*pair, tmp_path / "d.dpk", progress=interrupt)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base.safetensors", "tuned.safetensors"]
