"""Low-rank factors on the command line: asked for, counted, shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import diffpack
from diffpack_cli.main import cli
from tests.tools.low_rank import few_directions, matrices
from tests.tools.models import bits, write_safetensors


def run(*args: object) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args])


def told(*args: object) -> Any:
    done = run(*args, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    base = matrices()
    tuned = few_directions(base)
    return (
        write_safetensors(tmp_path / "base.safetensors", base),
        write_safetensors(tmp_path / "tuned.safetensors", tuned),
    )


@pytest.mark.parametrize("asked", [("--budget", "8kB"), ("--values", "lowrank", "--rank", "3")])
def test_factors_are_extracted_counted_and_shown(pair: tuple[Path, Path], tmp_path: Path, asked: tuple[str]) -> None:
    base, tuned = pair
    path = tmp_path / "task.dpk"
    extracted = told("extract", "--base", base, "--tuned", tuned, "-o", path, *asked)
    assert extracted["error"] < 0.1  # the matrices move along three directions
    counted = told("stats", path, "--tensors")["diffs"][0]
    assert counted["factor_bytes"] > counted["position_bytes"]
    parts = ("factor_bytes", "position_bytes", "value_bytes", "manifest_bytes", "file_bytes")
    assert 0 <= counted["bytes"] - sum(counted[part] for part in parts) < 100  # the frame
    ranks = {tensor["name"]: (tensor["values"], tensor["rank"]) for tensor in counted["tensors"]}
    assert ranks["body.0.weight"] == ranks["body.1.weight"] == ("lowrank", 3)
    assert ranks["body.bias"][1] == 0
    shown = told("inspect", path, "--tensors")
    assert "lowrank" in shown["requires"]
    assert {(group["factors"], group["rank"]) for group in shown["groups"]} == {("int", 3), (None, 0)}
    tensors = {tensor["name"]: tensor for tensor in shown["tensors"]}
    assert {name: (tensor["values"], tensor["rank"]) for name, tensor in tensors.items()} == ranks
    errors = {tensor["name"]: tensor["error"] for tensor in counted["tensors"]}
    assert {name: tensor["error"] for name, tensor in tensors.items()} == errors
    assert 0 < errors["body.0.weight"] < 0.1
    text = run("inspect", path, "--tensors").stdout
    assert "factors (int) of rank 3 or less" in text
    assert "lowrank r=3" in text
    assert run("verify", path, "--base", base).exit_code == 0
    result = tmp_path / "result.safetensors"
    assert run("apply", "--base", base, path, "-o", result).exit_code == 0
    assert bits(diffpack.load(result, diffpack.extract(result, result))) == bits(diffpack.load(base, path))


def test_a_rank_caps_what_a_budget_finds(pair: tuple[Path, Path], tmp_path: Path) -> None:
    base, tuned = pair
    found = {}
    for rank in (0, 1, 2):
        path = tmp_path / f"{rank}.dpk"
        told("extract", "--base", base, "--tuned", tuned, "-o", path, "--budget", "8kB", "--rank", rank)
        found[rank] = max(tensor["rank"] for tensor in told("stats", path, "--tensors")["diffs"][0]["tensors"])
    assert found == {0: 0, 1: 1, 2: 2}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            ("--rank", "4"),
            "a rank goes with a budget, a target error, low-rank values, or exact ones in the profile smallest",
        ),
        (("--values", "lowrank", "--rank", "0"), "a rank is a whole number from 1"),
        (("--budget", "1MB", "--rank", "-1"), "a rank is a whole number from 0"),
        (("--values", "lowrank", "--density", "0.1"), "low rank is of a whole change"),
        (("--values", "lowrank", "--budget", "1MB"), "by itself"),
    ],
)
def test_what_a_rank_does_not_go_with_is_refused_before_a_file_is_opened(asked: tuple[str], said: str) -> None:
    done = run("extract", "--base", "no.safetensors", "--tuned", "none.safetensors", *asked)
    assert done.exit_code == 2
    assert said in done.stderr


def test_operations_keep_factors_or_say_that_they_do_not(pair: tuple[Path, Path], tmp_path: Path) -> None:
    base, tuned = pair
    one, two, made = (tmp_path / f"{name}.dpk" for name in ("one", "two", "made"))
    told("extract", "--base", base, "--tuned", tuned, "-o", one, "--budget", "8kB")
    told("extract", "--base", base, "--tuned", tuned, "-o", two, "--values", "lowrank", "--rank", "2")
    known = {name: record.rank for name, record in diffpack.open(one).items()}
    assert max(known.values()) == 3

    def made_by(*args: object) -> Any:
        return told(*args, "-o", made, "--force")

    onto = write_safetensors(tmp_path / "onto.safetensors", few_directions(matrices(), seed=9))
    report = made_by("rebase", one, "--base", base, "--onto", onto)
    assert {name: record.rank for name, record in diffpack.open(made).items()} == known
    assert report["notes"] == []
    short = {name: array for name, array in matrices().items() if name != "head.weight"}
    report = made_by("rebase", one, "--onto", write_safetensors(tmp_path / "short.safetensors", short))
    assert any("low-rank factors become float32 values" in note for note in report["notes"])
    made_by("rename", one, "--rename", "=m.", "--base", base)
    assert {name: record.rank for name, record in diffpack.open(made).items()} == {
        f"m.{name}": rank for name, rank in known.items()
    }
    made_by("merge", one, two, "--base", base, "--weights", "0.5,0.5")
    halves = [diffpack.open(path)["body.1.weight"].to_dense() for path in (one, two, made)]
    assert abs(halves[0] / 2 + halves[1] / 2 - halves[2]).max() < 1e-6
    total = told("diff", one, two)["total"]
    assert total["cosine"] > 0.7
    for verb in (("compose", one, two), ("invert", one)):
        refused = run(*verb, "-o", made, "--force")
        assert refused.exit_code == 2
        assert "lossy; only exact diffs" in refused.stderr
