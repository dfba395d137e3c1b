"""What is called as a file becomes no folder: slips and other tools' endings are refused, a slash is meant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import diffpack
from diffpack.errors import UsageError
from tests.tools.models import write_safetensors

SLIPS = [
    "out.safetensor",
    "model.safetensors.index.json",
    "out.keras",
    "out.tflite",
    "out.pickle",
    "out.pkl",
    "out.hd5",
]
SLIPS += ["out.gguf", "out.tar", "out.json", "out.dpk", "out.SafeTensor", "out.model"]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "base").mkdir()
    write_safetensors(tmp_path / "base" / "model.safetensors", {"w": np.zeros(8, np.float32)})
    return tmp_path / "base"


def diff_of(base: Path) -> diffpack.Diff:
    return diffpack.extract(base, {"w": np.ones(8, np.float32)})


@pytest.mark.parametrize("name", SLIPS)
@pytest.mark.parametrize("of_file", [False, True])
def test_what_is_called_as_a_file_does_not_become_a_folder(base: Path, name: str, of_file: bool) -> None:
    source = base / "model.safetensors" if of_file else base
    before = sorted(base.parent.iterdir())
    with pytest.raises(UsageError, match=r"called as a file .*end it with / |read, not written"):
        diffpack.apply(source, diff_of(base), base.parent / name)
    assert sorted(base.parent.iterdir()) == before


@pytest.mark.parametrize("name", ["all-MiniLM-L6-v2.1", "bert.finetuned", "whisper.en", "qwen2.5", "out"])
def test_dots_in_names_of_folders_are_nothing_special(base: Path, name: str) -> None:
    diffpack.apply(base, diff_of(base), base.parent / name)
    assert (base.parent / name / "model.safetensors").is_file()


@pytest.mark.parametrize("name", ["out.keras", "out.safetensors", "out.safetensor", "v1.2", "out"])
def test_a_slash_at_the_end_means_a_folder(base: Path, name: str) -> None:
    diff = diff_of(base)
    diffpack.apply(base / "model.safetensors", diff, f"{base.parent / name}/")
    assert (base.parent / name / "model.safetensors").is_file()
    diffpack.apply(base / "model.safetensors", diff, f"{base.parent / name}/", force=True)


def test_a_folder_that_is_there_is_meant(base: Path) -> None:
    (base.parent / "run.model").mkdir()
    diffpack.apply(base, diff_of(base), base.parent / "run.model", force=True)
    assert (base.parent / "run.model" / "model.safetensors").is_file()


@pytest.mark.parametrize("ending", [".pth.tar", ".pt.tar", ".th", ".ckpt", ".pth", ".bin", ".npz", ".safetensors"])
def test_endings_that_are_written_are_files_and_read_again(base: Path, ending: str) -> None:
    diff = diff_of(base)
    diffpack.apply(base, diff, base.parent / f"out{ending}")
    assert diffpack.fingerprint(base.parent / f"out{ending}") == diff.manifest.result.fingerprint
    assert diffpack.open_checkpoint(base.parent / f"out{ending}").notes == []


def test_a_diff_is_no_folder(base: Path) -> None:
    with pytest.raises(UsageError, match="a folder, by the slash"):
        diffpack.extract(base, base, f"{base.parent}/d.dpk/")
    assert not (base.parent / "d.dpk").exists()


def test_the_folder_of_another_tool_is_not_called_as_a_file_either(base: Path, tmp_path: Path) -> None:
    diff = diff_of(base)
    with pytest.raises(UsageError, match=r"called as a file \(\.safetensor, nearly \.safetensors\)"):
        diffpack.convert(diff, tmp_path / "adapter.safetensor", to="sglang-delta", base=base)
    diffpack.convert(diff, f"{tmp_path}/delta.bin/", to="sglang-delta", base=base)
    assert (tmp_path / "delta.bin").is_dir()
