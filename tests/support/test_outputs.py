"""An output is whole or not there, and never in the place of an input."""

from __future__ import annotations

import os

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
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="exists already"):
        diffpack.extract(BASE, TUNED, tmp_path / "link")
    diffpack.extract(BASE, TUNED, tmp_path / "link", force=True)
    assert not (tmp_path / "link").is_symlink()
    assert not (tmp_path / "nowhere").exists()


def test_a_name_as_long_as_the_system_takes_is_fine(tmp_path):
    path = tmp_path / ("\N{GRINNING FACE}" * 62 + ".dpk")
    diffpack.extract(BASE, TUNED, path)
    assert diffpack.open(path).exact
    with atomic_folder(tmp_path / ("\N{GRINNING FACE}" * 62)) as folder, atomic_file(folder / "x") as file:
        file.write(b"1")


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
