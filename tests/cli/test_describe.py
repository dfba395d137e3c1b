"""What a diff says beside values is told by `extract` and `inspect`, as text and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from click.testing import CliRunner

from diffpack_cli.main import cli
from tests.tools.models import write_safetensors


def printed(*args: object) -> str:
    done = CliRunner().invoke(cli, [str(arg) for arg in args], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def test_tensors_that_are_compared_with_base_tensors_of_other_names(tmp_path: Path) -> None:
    embed = np.random.default_rng(0).standard_normal((200, 16)).astype(np.float32)
    base = write_safetensors(tmp_path / "base.safetensors", {"embed.weight": embed})
    both = {"embed.weight": embed, "lm_head\n.weight": embed * np.float32(1.001)}
    tuned = write_safetensors(tmp_path / "tuned.safetensors", both)
    extracted = ("extract", "--base", base, "--tuned", tuned, "-o", tmp_path / "head.dpk", "--force")
    for command in (extracted, ("inspect", tmp_path / "head.dpk")):
        lines = [line.strip() for line in printed(*command).splitlines()]
        words = [line.split() for line in lines]
        assert ["near", "1", "tensor:", "lm_head\\n.weight", "from", "embed.weight"] in words
        report = json.loads(printed(*command, "--json"))
        assert report["copies"] == [{"name": "lm_head\n.weight", "source": "embed.weight"}]
        assert report["new"] == []
    assert json.loads(printed("inspect", tmp_path / "head.dpk", "--json"))["format"] == "1.2"
    plain = write_safetensors(tmp_path / "plain.safetensors", {"embed.weight": embed * np.float32(1.001)})
    text = printed("extract", "--base", base, "--tuned", plain, "-o", tmp_path / "plain.dpk")
    assert "near" not in text


def test_tensors_that_are_made_of_slices_of_base_tensors(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    parts = {f"{name}.weight": rng.standard_normal((20, 16)).astype(np.float32) for name in "qkv"}
    base = write_safetensors(tmp_path / "base.safetensors", parts)
    whole = {"qkv.weight": np.concatenate([parts[f"{name}.weight"] for name in "qkv"])}
    tuned = write_safetensors(tmp_path / "tuned.safetensors", whole)
    extracted = ("extract", "--base", base, "--tuned", tuned, "-o", tmp_path / "qkv.dpk", "--force")
    for command in (extracted, ("inspect", tmp_path / "qkv.dpk")):
        words = [line.split() for line in printed(*command).splitlines()]
        assert ["slices", "1", "tensor:", "qkv.weight", "from", "q.weight", "and", "2", "more"] in words
        report = json.loads(printed(*command, "--json"))
        assert report["slices"] == [{"name": "qkv.weight", "sources": ["q.weight", "k.weight", "v.weight"]}]
        assert report["new"] == []
