"""Outputs that are links, from the command line: followed, or refused with what to do; never replaced."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import diffpack
from tests.tools.command_line import fails, ok
from tests.tools.models import model, tune, write_safetensors

EXTRACT = ("extract", "--base", "base.safetensors", "--tuned", "tuned.safetensors")
WRITING = {
    "extract": EXTRACT,
    "apply": ("apply", "--base", "base.safetensors", "d.dpk"),
    "compose": ("compose", "d.dpk"),
    "invert": ("invert", "d.dpk"),
    "merge": ("merge", "d.dpk", "d.dpk", "--base", "base.safetensors"),
    "rebase": ("rebase", "d.dpk", "--onto", "base.safetensors"),
    "convert": ("convert", "d.dpk", "--to", "hdf5"),
}


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_safetensors(tmp_path / "base.safetensors", model())
    write_safetensors(tmp_path / "tuned.safetensors", tune(model()))
    diffpack.extract("base.safetensors", "tuned.safetensors", "d.dpk").close()
    return tmp_path


@pytest.mark.parametrize("verb", WRITING)
def test_every_verb_follows_a_link_and_refuses_a_device(work, verb):
    args = WRITING[verb]
    os.mkdir("store")
    ending = ".safetensors" if verb == "apply" else ".out"
    (work / f"link{ending}").symlink_to(f"store/real{ending}")
    fails(2, "a link that leads nowhere .*; remove it, or name another output", *args, "-o", f"link{ending}", "--force")
    (work / "store" / f"real{ending}").write_bytes(b"old")
    fails(2, "exists already; use --force", *args, "-o", f"link{ending}")
    ok(*args, "-o", f"link{ending}", "--force")
    assert os.readlink(f"link{ending}") == f"store/real{ending}"
    assert (work / "store" / f"real{ending}").stat().st_size > 3
    assert os.listdir("store") == [f"real{ending}"]
    (work / "null").symlink_to(os.devnull)
    fails(2, "neither a file nor a folder; - writes a diff to standard output", *args, "-o", "null", "--force")
    assert os.readlink("null") == os.devnull


@pytest.mark.skipif(not Path("/dev/stdout").is_symlink(), reason="needs /dev/stdout")
def test_standard_output_by_its_name_is_not_replaced(work):
    (work / "stdout").symlink_to("/proc/self/fd/1")
    for name in ("stdout", "/dev/stdout"):
        command = [sys.executable, "-m", "diffpack_cli", *EXTRACT, "-o", name, "--force"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 2
        assert done.stdout == ""
        assert "- writes a diff to standard output" in done.stderr
    assert os.readlink("stdout") == "/proc/self/fd/1"
    assert Path("/dev/stdout").is_symlink()
