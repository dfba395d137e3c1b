"""`--force` replaces a model folder, and never takes anything else with it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import diffpack
from diffpack.checkpoints import overwriting
from diffpack.errors import UsageError
from tests.tools.command_line import fails
from tests.tools.models import write_safetensors

BASE, TUNED = {"w": np.zeros((8, 8), np.float32)}, {"w": np.eye(8, dtype=np.float32)}
Convert = Callable[[Path], object]


def folder_of(path: Path, *names: str) -> Path:
    """A folder with weights and further files; names that end with a slash are folders."""
    path.mkdir()
    write_safetensors(path / "model.safetensors", BASE)
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            (path / name).mkdir()
        else:
            (path / name).write_text(name)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def writers(tmp_path: Path) -> dict[str, Convert]:
    """Everything that writes a folder."""
    base = write_safetensors(tmp_path / "base.safetensors", BASE)
    tuned = write_safetensors(tmp_path / "tuned.safetensors", {"w.weight": TUNED["w"]})
    diff = diffpack.extract(base, write_safetensors(tmp_path / "t.safetensors", TUNED), tmp_path / "d.dpk")
    weights = write_safetensors(tmp_path / "b.safetensors", {"w.weight": BASE["w"]})
    shira = diffpack.extract(weights, tuned, values="f32")
    return {
        "apply": lambda out: diffpack.apply(base, diff, out, force=True),
        "scipy": lambda out: diffpack.convert(diff, out, to="scipy", force=True),
        "sglang": lambda out: diffpack.convert(diff, out, to="sglang-delta", base=base, force=True),
        "shira": lambda out: diffpack.convert(shira, out, to="peft-shira", base=weights, force=True),
    }


OTHER = [
    ".git/HEAD", "thesis.docx", "notes/thesis.docx", ".env", ".gitattributes", "data/", "train.py", "task.dpk",
    "runs/events.out", "model.onnx", "features.npy", "a.json/b.pdf", ".hidden/config.json", "thesis.txt.docx",
]  # fmt: skip


@pytest.mark.parametrize("name", ["apply", "scipy", "sglang", "shira"])
def test_a_folder_with_anything_else_in_it_is_refused_by_naming_that(tmp_path, writers, name):
    for at, other in enumerate(OTHER):
        out = folder_of(tmp_path / f"out{at}", "config.json", other)
        if other == "data/":
            (out / "data").rmdir()
            (out / "data").symlink_to(tmp_path)
        before = contents(out)
        with pytest.raises(UsageError, match=r"would be lost: \S*" + other.rstrip("/").split("/")[0]) as refused:
            writers[name](out)
        assert str(out) in str(refused.value)
        assert "choose another name" in str(refused.value)
        assert contents(out) == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("name", ["apply", "scipy", "sglang", "shira"])
def test_what_outputs_and_model_folders_hold_is_replaced(tmp_path, writers, name):
    known = (
        "config.json", "tokenizer.json", "vocab.txt", "merges.txt", "tokenizer.model.v3", "chat_template.jinja",
        "README.md", "LICENSE", "LICENSE.txt", "NOTICE", "model-00001-of-00002.safetensors", "pytorch_model.bin",
        "pytorch_model.bin.index.json", "tf_model.h5", "old.hdf5", "a.pt", "a.pth", "a.ckpt", "w.npz", "layout.bin",
        "1_Pooling/config.json", "2_Dense/model.safetensors", "2_Dense/config.json", "onnx/config.json", "empty/",
    )  # fmt: skip
    out = folder_of(tmp_path / "out", *known)
    (out / "adapter_model.safetensors").symlink_to(tmp_path / "base.safetensors")
    writers[name](out)
    assert "vocab.txt" not in contents(out)
    fresh = tmp_path / "fresh"
    writers[name](fresh)
    assert contents(out) == contents(fresh)
    writers[name](out)  # what it wrote itself
    for other in ("apply", "scipy", "sglang", "shira"):
        writers[other](out)
    assert (tmp_path / "base.safetensors").exists()
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_a_folder_without_weights_is_no_models(tmp_path, writers):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("friend")
    with pytest.raises(UsageError, match="without weights"):
        writers["apply"](tmp_path / "letters")
    assert (tmp_path / "letters" / "dear.txt").read_text() == "friend"
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "inside").mkdir()
    writers["apply"](tmp_path / "empty")
    assert list(contents(tmp_path / "empty")) == ["model.safetensors"]


def test_what_killed_runs_left_in_it_is_no_obstacle(tmp_path, writers):
    out = folder_of(tmp_path / "out", ".model.safetensors.0123456789ab.part", ".x.0123456789ab.part/config.json")
    writers["apply"](out)
    assert list(contents(out)) == ["model.safetensors"]
    other = folder_of(tmp_path / "other", ".x.0123456789ab.old/config.json")  # which may be all there is of x
    with pytest.raises(UsageError, match="would be lost"):
        writers["apply"](other)


def test_what_comes_into_the_folder_meanwhile_is_not_lost(tmp_path, pair):
    base, tuned = pair
    diff = diffpack.extract(base, tuned, tmp_path / "d.dpk")
    out = folder_of(tmp_path / "out")

    def meanwhile(*_: object) -> None:
        (out / "thesis.docx").write_text("years")

    with pytest.raises(UsageError, match=r"would be lost: thesis\.docx"):
        diffpack.apply(base, diff, out, force=True, progress=meanwhile)
    assert (out / "thesis.docx").read_text() == "years"
    assert (out / "model.safetensors").read_bytes() == folder_of(tmp_path / "same").joinpath(
        "model.safetensors"
    ).read_bytes()


def test_many_are_named_in_part(tmp_path, writers):
    out = folder_of(tmp_path / "out", *(f"{at}.pdf" for at in range(9)))
    with pytest.raises(UsageError, match=r"lost: 0\.pdf, 1\.pdf, 2\.pdf, and more; remove"):
        writers["apply"](out)


def test_the_folder_one_is_in_is_not_replaced(tmp_path, writers, monkeypatch):
    out = folder_of(tmp_path / "out", "inside/config.json")
    for place in (out, out / "inside"):
        monkeypatch.chdir(place)
        with pytest.raises(UsageError, match="the folder you are in"):
            writers["apply"](out)
    monkeypatch.chdir(out)
    with pytest.raises(UsageError, match="the folder you are in"):
        writers["apply"](Path("."))
    shutil.rmtree(out)  # a current folder that is gone is in no way
    folder_of(tmp_path / "other")
    writers["apply"](tmp_path / "other")


def test_a_mounted_disk_is_not_replaced(tmp_path, writers, monkeypatch):
    out = folder_of(tmp_path / "out")
    monkeypatch.setattr(overwriting.os.path, "ismount", lambda path: Path(path) == out)
    with pytest.raises(UsageError, match="a disk is mounted there"):
        writers["apply"](out)


def test_a_file_is_replaced_by_a_folder_of_its_name(tmp_path, writers):
    (tmp_path / "out").write_text("old")
    writers["apply"](tmp_path / "out")
    assert list(contents(tmp_path / "out")) == ["model.safetensors"]


@pytest.mark.parametrize("ending", [".safetensors", ".bin", ".h5"])
def test_a_folder_is_not_replaced_by_a_file_of_its_name(tmp_path, writers, ending):
    out = folder_of(tmp_path / f"out{ending}")
    with pytest.raises(UsageError, match="a folder; name the file"):
        writers["apply"](out)
    with pytest.raises(UsageError, match="a folder; name the file"):
        diffpack.convert(tmp_path / "d.dpk", out, to="hdf5", force=True)
    assert list(contents(out)) == ["model.safetensors"]


def test_the_command_line_says_what_is_in_the_way(tmp_path, writers, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder_of(tmp_path / "out", ".git/HEAD")
    said = fails(
        2, r"out: holds .* \.git/; remove", "apply", "--base", "base.safetensors", "d.dpk", "-o", "out", "--force"
    )
    assert said.count("\n") <= 2
    assert os.path.exists("out/.git/HEAD")
