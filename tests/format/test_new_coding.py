"""Adding a position coding takes one file and its line in the registry: every verb then knows it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import diffpack
from diffpack.errors import UnsupportedFormatError
from tests.tools import ROOT
from tests.tools.models import model, tune, write_safetensors

TOY = Path(__file__).parent / "toy_coding.py"
ENTRY = "        GAPS,\n"
IMPORT = "from diffpack.format.positions.classes import CLASSES\n"


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A copy of the library and its command line, with one coding more."""
    root = tmp_path_factory.mktemp("library")
    shutil.copytree(ROOT / "diffpack", root / "diffpack", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "cli", root / "diffpack_cli", ignore=shutil.ignore_patterns("__pycache__"))
    positions = root / "diffpack" / "format" / "positions"
    shutil.copy(TOY, positions / "bitmap.py")
    registry = positions / "__init__.py"
    text = registry.read_text()
    assert text.count(ENTRY) == text.count(IMPORT) == 1
    text = text.replace(IMPORT, "from diffpack.format.positions.bitmap import BITMAP\n" + IMPORT)
    registry.write_text(text.replace(ENTRY, ENTRY + "        BITMAP,\n"))
    return root


@pytest.fixture
def run(library, tmp_path):
    """Run a verb of the copy in a folder with a base and a tuned checkpoint; gives what --json prints."""
    base = model()
    write_safetensors(tmp_path / "base.safetensors", base, {"format": "pt"})
    write_safetensors(tmp_path / "tuned.safetensors", tune(base, 0.3), {"format": "pt"})

    def call(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", "diffpack_cli", *arguments, "--json"], cwd=tmp_path, text=True,
            env={**os.environ, "PYTHONPATH": str(library)}, capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return call


def extracted(run, *options):
    return run("extract", "--base", "base.safetensors", "--tuned", "tuned.safetensors", "-o", "x.dpk", *options)


def test_every_verb_takes_it(run, tmp_path):
    extracted(run, "--positions", "bitmap")
    described = run("inspect", "x.dpk", "--tensors")
    assert {group["positions"] for group in described["groups"]} == {"bitmap"}
    assert described["requires"] == ["bitmap", "pco"]
    assert described["format"] == "1.2"
    counted = run("stats", "x.dpk", "--count")["diffs"][0]
    before, after = (diffpack.open_checkpoint(tmp_path / f"{side}.safetensors") for side in ("base", "tuned"))
    differing = sum(int(np.count_nonzero(before.words(name) != after.words(name))) for name in before.tensors)
    assert counted["changed"] == differing > 0
    run("verify", "x.dpk", "--base", "base.safetensors")
    run("apply", "--base", "base.safetensors", "x.dpk", "-o", "back.safetensors")
    assert (tmp_path / "back.safetensors").read_bytes() == (tmp_path / "tuned.safetensors").read_bytes()


def test_operations_on_diffs_read_it(run, tmp_path):
    extracted(run, "--positions", "bitmap")
    run("invert", "x.dpk", "-o", "undo.dpk")
    run("apply", "--base", "tuned.safetensors", "undo.dpk", "-o", "first.safetensors")
    assert (tmp_path / "first.safetensors").read_bytes() == (tmp_path / "base.safetensors").read_bytes()


def test_a_reader_without_it_refuses_by_name(run, tmp_path):
    extracted(run, "--positions", "bitmap")
    with pytest.raises(UnsupportedFormatError, match="bitmap"):
        diffpack.open(tmp_path / "x.dpk")
