"""The gate that docs/jobs/cost.md puts into a workflow and a hook lets small diffs through, and no large one."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import diffpack
from tests.tools import ROOT
from tests.tools.command_line import run

PAGE = (ROOT / "docs" / "jobs" / "cost.md").read_text()
BLOCKS = [yaml.safe_load(text) for text in re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)]


def commands() -> list[str]:
    """What the workflow runs of diffpack, and what the hook does."""
    workflow, hooks = BLOCKS
    steps: list[Any] = workflow["jobs"]["budget"]["steps"]
    found = [step["run"] for step in steps if step.get("run", "").startswith("diffpack")]
    return found + [hook["entry"] for repo in hooks["repos"] for hook in repo["hooks"]]


@pytest.mark.parametrize("command", commands())
def test_the_gate_stops_what_is_too_large(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    base = {"w": np.random.default_rng(0).standard_normal((1000, 300)).astype(np.float32)}
    (tmp_path / "diffs").mkdir()
    few, all_of_it = ({"w": base["w"].copy()} for _ in range(2))
    few["w"][:3] += 1
    all_of_it["w"] *= 1.01
    program, *arguments = shlex.split(command)
    assert program == "diffpack"
    diffpack.extract(base, few, "diffs/few.dpk")
    assert run(*arguments).exit_code == 0
    diffpack.extract(base, all_of_it, "diffs/all.dpk")
    stopped = run(*arguments)
    assert stopped.exit_code == 1
    assert re.findall(r"^diffpack: (\S+): .*, over ", stopped.stderr, re.MULTILINE) == ["diffs/all.dpk"]


def test_there_are_two_ways_to_run_it():
    assert len(commands()) == 2
