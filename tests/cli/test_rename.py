"""What the command line says of renamed tensors without being asked, and what it takes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
from click.testing import CliRunner, Result

import diffpack
from diffpack_cli.main import cli
from tests.tools.models import Arrays, write_safetensors


def run(*args: str | Path) -> Result:
    done = CliRunner().invoke(cli, [str(arg) for arg in args])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def layers(seed: int, name: str) -> Arrays:
    rng = np.random.default_rng(seed)
    return {name.format(at, part): rng.standard_normal((32, 32), np.float32) for at in range(6) for part in "qkv"}


def test_what_would_help_is_said_and_helps(tmp_path: Path) -> None:
    base = write_safetensors(tmp_path / "base.safetensors", layers(0, "model.layers.{}.self_attn.{}.weight"))
    tuned = write_safetensors(tmp_path / "tuned.safetensors", layers(1, "model.blocks.{}.attn.{}.weight"))
    out = tmp_path / "out.dpk"
    command = ("extract", "--base", base, "--tuned", tuned, "-o", out, "--force", "--allow-removed")
    said = run(*command).stderr
    found = re.search(r"say how they are called: --rename '(.*)'\n", said)
    assert found is not None, said
    assert run(*command, "-q").stderr == ""
    report = json.loads(run(*command, "--json").stdout)
    assert any(found[1] in note for note in report["notes"])
    assert len(report["new"]) == 18
    helped = run(*command, "--rename", found[1], "--json")
    assert helped.stderr == ""
    report = json.loads(helped.stdout)
    assert (report["new"], report["removed"], report["notes"]) == ([], [], [])


def test_a_pattern_may_hold_equals_signs_and_is_read_before_anything_else(tmp_path: Path) -> None:
    base = write_safetensors(tmp_path / "base.safetensors", layers(0, "layers.{}.{}.weight"))
    tuned = write_safetensors(tmp_path / "tuned.safetensors", layers(0, "layers.{}.attn.{}.weight"))
    out = tmp_path / "out.dpk"
    command = ("extract", "--base", base, "--tuned", tuned, "-o", out)
    for wrong in ("re:(=x", r"re:layers=\3", "re:x", "re:=x", "layers"):
        done = run(*command, "--rename", wrong)
        assert done.exit_code == 2
        assert "--rename" in done.stderr
    assert run(*command, "--rename", r"re:(?<=\d\.)(?=[qkv])=attn.").exit_code == 0
    assert len(diffpack.open(out)) == 0


def test_a_diff_is_renamed_from_and_to_a_pipe(tmp_path: Path) -> None:
    base = write_safetensors(tmp_path / "base.safetensors", layers(0, "layers.{}.{}.weight"))
    tuned = write_safetensors(tmp_path / "tuned.safetensors", layers(1, "layers.{}.{}.weight"))
    diffpack.extract(base, tuned, tmp_path / "task.dpk")
    done = CliRunner().invoke(
        cli,
        ["rename", "-", "--rename", "layers.=h.", "--base", str(base), "-o", str(tmp_path / "out.dpk"), "--json"],
        input=(tmp_path / "task.dpk").read_bytes(),
    )
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["rename"] == [{"old": "layers.", "new": "h."}]
    assert run("apply", "--base", base, tmp_path / "out.dpk", "-o", tmp_path / "out.safetensors").exit_code == 0
    assert set(diffpack.open_checkpoint(tmp_path / "out.safetensors").tensors) == set(layers(1, "h.{}.{}.weight"))
