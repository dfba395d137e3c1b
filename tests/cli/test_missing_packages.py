"""A package that is not installed is named with the extra that brings it, and is no bug of ours."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import diffpack
from diffpack_cli.errors import EXTRAS

RUN = """
import sys
for name in sys.argv.pop(1).split():
    sys.modules[name] = None
from diffpack_cli.main import main
sys.exit(main())
"""


def without(packages: str, *arguments: str, cwd: Path) -> tuple[int, str]:
    command = [sys.executable, "-c", RUN, packages, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)
    return done.returncode, done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    diffpack.extract({"w": np.zeros(3, np.float32)}, {"w": np.ones(3, np.float32)}, tmp_path / "d.dpk")
    for name in ("base", "tuned"):
        diffpack.apply({"w": np.zeros(3, np.float32)}, tmp_path / "d.dpk", tmp_path / f"{name}.bin", verify=False)
    (tmp_path / "x.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    (tmp_path / "t.tsv").write_text("text\tlabel\na\tx\nb\ty\n")
    (tmp_path / "k.pub").write_text("ssh-ed25519 AAAA\n")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps({"model_type": "bert"}))
    return tmp_path


TRAIN = ["train", "--model", "model", "--train", "t.tsv", "--dev", "t.tsv", "-o", "z.dpk"]


@pytest.mark.parametrize(
    ("packages", "arguments", "extra"),
    [
        ("h5py", ["fingerprint", "x.h5"], "hdf5"),
        ("h5py", ["convert", "d.dpk", "-o", "o.h5", "--to", "hdf5"], "hdf5"),
        ("yaml", ["merge", "--config", "model/config.json", "-o", "o.dpk"], "yaml"),
        ("cryptography", ["sign", "d.dpk", "--key", "t.tsv"], "sign"),
        ("cryptography", ["verify", "d.dpk", "--key", "k.pub", "--signature", "t.tsv"], "sign"),
        ("torch", TRAIN, "train"),
        ("transformers", TRAIN, "train"),
    ],
)
def test_the_extra_that_is_needed_is_named(folder: Path, packages: str, arguments: list[str], extra: str) -> None:
    code, told = without(packages, *arguments, cwd=folder)
    assert code == 1
    assert f"'diffpack[{extra}]'" in told
    assert packages in told
    assert "a bug" not in told


def test_pytorch_files_need_no_torch(folder: Path) -> None:
    assert without("torch", "extract", "--base", "base.bin", "--tuned", "tuned.bin", "-o", "e.dpk", cwd=folder) == (
        0,
        "",
    )
    assert without("torch", "-q", "apply", "--base", "base.bin", "e.dpk", "-o", "out.bin", cwd=folder) == (0, "")


def test_a_package_that_is_always_needed_is_to_be_installed_again(folder: Path) -> None:
    code, told = without("zstandard", "verify", "d.dpk", cwd=folder)
    assert code == 1
    assert "the package zstandard is missing" in told
    assert "pip install --force-reinstall 'diffpack'" in told


def test_every_package_is_in_the_extra_that_is_named() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    names = {"sklearn": "scikit-learn"}
    for package, extra in EXTRAS.items():
        brought = {item.partition(">=")[0] for item in project["optional-dependencies"][extra]}
        assert names.get(package, package) in brought, package
