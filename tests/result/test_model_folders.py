"""Model folders with files in sub-folders, with code, and with what a diff leaves out: all is given back, or said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import diffpack
from diffpack.errors import CheckpointError, DiffpackError, UsageError
from tests.tools.command_line import fails, ok, run
from tests.tools.models import model, tune, write_safetensors, write_shards

Change = Callable[[Path], object]


def sentence_model(folder: Path, seed: int) -> Path:
    """A folder as sentence-transformers writes it: a transformer, and a layer in a folder of its own."""
    (folder / "2_Dense").mkdir(parents=True)
    (folder / "1_Pooling").mkdir()
    weights = model()
    dense = {"linear.weight": np.random.default_rng(9).standard_normal((8, 8)).astype(np.float32)}
    write_safetensors(folder / "model.safetensors", tune(weights, seed) if seed else weights, {"format": "pt"})
    if seed:
        dense["linear.weight"][3] += np.float32(0.25)
    write_safetensors(folder / "2_Dense" / "model.safetensors", dense, {"format": "pt", "seed": str(seed)})
    (folder / "modules.json").write_text('["", "1_Pooling", "2_Dense"]')
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"mean": seed}))
    (folder / "2_Dense" / "config.json").write_text('{"out": 8}')
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return sentence_model(tmp_path / "base", 0), sentence_model(tmp_path / "tuned", 1)


def test_files_in_folders_are_given_back(pair, tmp_path):
    base, tuned = pair
    with diffpack.extract(base, tuned, tmp_path / "d.dpk") as diff:
        assert "paths" in diff.manifest.requires
        assert "2_Dense/linear.weight" in diff
    assert diffpack.verify(tmp_path / "d.dpk", base)
    diffpack.apply(base, tmp_path / "d.dpk", tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tuned)
    undo = diffpack.invert(tmp_path / "d.dpk", base=base)
    diffpack.apply(tuned, undo, tmp_path / "back")
    assert contents(tmp_path / "back").keys() == contents(base).keys()
    for name in ("model.safetensors", "2_Dense/model.safetensors", "1_Pooling/config.json"):
        assert (name, contents(tmp_path / "back")[name]) == (name, contents(base)[name])


def test_shards_in_a_folder_are_given_back(tmp_path):
    """A part of a diffusion model, in shards with their index."""
    for name, change in (("base", False), ("tuned", True)):
        own = {"a.safetensors": model(1), "b.safetensors": {f"b.{key}": value for key, value in model(2).items()}}
        if change:
            own["b.safetensors"] = tune(own["b.safetensors"])
        folder = tmp_path / name
        (folder / "unet").mkdir(parents=True)
        index = write_shards(folder / "unet", own)
        index.rename(folder / "unet" / "diffusion_pytorch_model.safetensors.index.json")
        (folder / "model_index.json").write_text('{"unet": ["diffusers", "UNet"]}')
    diffpack.extract(tmp_path / "base", tmp_path / "tuned", tmp_path / "d.dpk").close()
    diffpack.apply(tmp_path / "base", tmp_path / "d.dpk", tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "tuned")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: (folder / "README.md").write_text("x"), "README.md"),
        (lambda folder: (folder / "modeling.py").write_text("x"), "modeling.py"),
        (lambda folder: (folder / "onnx").mkdir() or (folder / "onnx" / "model.onnx").write_text("x"), "onnx/"),
        (lambda folder: (folder / "2_Dense" / "notes.md").write_text("x"), "2_Dense/notes.md"),
        (lambda folder: (folder / "pytorch_model.bin").write_bytes(b"x"), "pytorch_model.bin"),
        (lambda folder: (folder / "2_Dense" / "rust_model.ot").write_bytes(b"x"), "2_Dense/rust_model.ot"),
        (lambda folder: (folder / "checkpoint-5").mkdir(), "checkpoint-5/ (training state)"),
        (lambda folder: (folder / "optimizer.pt").write_bytes(b"x"), "optimizer.pt (training state)"),
        (lambda folder: (folder / "linked").symlink_to(folder / "1_Pooling"), "linked/"),
        (lambda folder: (folder / "adapter_config.json").write_text("{}"), "adapter_config.json"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_left_out_is_said(pair, tmp_path, change: Change, said: str, monkeypatch):
    change(pair[1])
    monkeypatch.chdir(tmp_path)
    args = ("extract", "--base", "base", "--tuned", "tuned", "-o", "d.dpk", "--force")
    assert f"diffpack: not stored: 1 item: {said}\n" in run(*args).stderr
    assert json.loads(ok(*args, "--json"))["left_out"] == [said]
    assert diffpack.open("d.dpk").manifest.recipe["left out"] == said


def test_code_is_kept_and_written_where_asked_for(pair, tmp_path, monkeypatch):
    base, tuned = pair
    for folder in pair:
        (folder / "2_Dense" / "modeling.py").write_text("OUT = 8\n")
    (tuned / "custom.py").write_text("import os\n")
    monkeypatch.chdir(tmp_path)
    assert "not stored" not in run("extract", "--base", "base", "--tuned", "tuned", "-o", "d.dpk", "--code").stderr
    assert "code" in diffpack.open("d.dpk").manifest.requires
    fails(2, "d.dpk: holds code .*custom.py", "apply", "--base", "base", "d.dpk", "-o", "out")
    with pytest.raises(UsageError, match="holds code"):
        diffpack.apply(base, "d.dpk", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    ok("apply", "--base", "base", "d.dpk", "-o", "out", "--code")
    assert contents(tmp_path / "out") == contents(tuned)
    ok("apply", "--base", "base", "d.dpk", "-o", "plain", "--no-files")
    assert not list((tmp_path / "plain").rglob("*.py"))
    diffpack.extract(base, tuned, tmp_path / "none.dpk").close()
    diffpack.apply(base, tmp_path / "none.dpk", tmp_path / "none")
    assert not list((tmp_path / "none").rglob("*.py"))


def test_one_name_for_two_tensors_is_refused(pair):
    base, _ = pair
    write_safetensors(base / "model.safetensors", {"2_Dense/linear.weight": np.zeros(3, np.float32)})
    with pytest.raises(CheckpointError, match=r"two tensors are called '2_Dense/linear.weight'"):
        diffpack.open_checkpoint(base)


def test_a_damaged_part_is_refused_by_name(pair, tmp_path):
    base, tuned = pair
    path = tuned / "2_Dense" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DiffpackError, match="2_Dense"):
        diffpack.extract(base, tuned, tmp_path / "d.dpk")
    assert not (tmp_path / "d.dpk").exists()
