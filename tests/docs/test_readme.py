"""Every command in the README does what it says there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import diffpack
from benchmarks import demo
from tests.tools import ROOT
from tests.tools.models import model, tune, write_safetensors

README = (ROOT / "README.md").read_text()
BIN = Path(sys.executable).parent


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_every_command_runs(tmp_path):
    write_safetensors(tmp_path / "base.safetensors", model(), {"format": "pt"})
    write_safetensors(tmp_path / "ft.safetensors", tune(model()), {"format": "pt"})
    commands = [line for block in blocks("sh") for line in block.splitlines()]
    assert len(commands) > 9
    for line in commands:
        program, *arguments = shlex.split(line)
        if program == "make":
            subprocess.run(["make", "-n", *arguments], cwd=ROOT, check=True, capture_output=True)
        else:
            subprocess.run([BIN / program, *arguments], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "restored.safetensors").read_bytes() == (tmp_path / "ft.safetensors").read_bytes()
    for block in blocks("python"):
        subprocess.run([sys.executable, "-c", block], cwd=tmp_path, check=True, capture_output=True)


def test_make_targets_named_in_the_text_exist():
    targets = set(re.findall(r"`make ([\w-]+)`", README))
    assert {"test", "fuzz", "bench-foundation"} <= targets
    for target in targets:
        subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)


def test_it_is_short_and_its_links_lead_somewhere():
    assert len(README.splitlines()) < 200
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        if not link.startswith("http"):
            assert (ROOT / link).exists(), link


def test_its_numbers_are_the_measured_ones():
    rows = (ROOT / "benchmarks" / "results" / "foundation.csv").read_text()

    def value(what):
        return float(re.search(rf"^\"?{re.escape(what)}\"?,([\d.]+)", rows, re.MULTILINE)[1])

    assert f"**{value('real pair, compact: diff'):.1f} %**" in README
    for what, digits, unit in (
        ("real pair, float32, smallest: diff", 1, " %"),
        ("real pair, bfloat16, smallest: diff", 1, " %"),
        ("RL-like bfloat16 update, 1.4 % changed, smallest: diff", 1, " bits"),
    ):
        assert f"**{value(what):.{digits}f}{unit}**" in README
    low, high = value("0.5 % changed, int8: diff"), value("0.5 % changed, f16: diff")
    assert f"**{low:.2f} to {high:.2f} %**" in README


@pytest.mark.real
def test_its_numbers_are_those_of_what_the_commands_print(real_pair, tmp_path):
    """Of the file and of the folder: one share, of the weights; what stands beside them is told apart."""
    base, tuned = real_pair

    def printed(*args):
        program = [sys.executable, "-m", "diffpack", "extract", "-o", tmp_path / "d.dpk", "--force", *args]
        return subprocess.run(program, capture_output=True, text=True, check=True).stdout.splitlines()

    def sides(name=""):
        return ["--base", base / name, "--tuned", tuned / name]

    share = re.search(r"Exact diffs of the same pair.*?the diff is \*\*([\d.]+ %)\*\*", README, re.DOTALL)[1]
    beside = re.search(r"of the model folder ([\d.]+ kB) of side files", README)[1]
    smallest = re.search(r"`--profile smallest`.*?takes \*\*([\d.]+ %)\*\*", README, re.DOTALL)[1]
    file, folder = printed(*sides("model.safetensors")), printed(*sides())
    assert f", {share} of the base, exact" in file[0]
    assert "side files" not in file[0]
    assert f" and {beside} of side files, {share} of the base, exact" in folder[0]
    assert folder[1:] == file[1:]
    moved = re.search(r"entries, ([\d.]+) %", file[1])[1]
    assert f"in which {float(moved):.0f} % of the float32 weights moved" in README
    assert f", {smallest} of the base, exact" in printed(*sides("model.safetensors"), "--profile", "smallest")[0]


@pytest.mark.real
def test_a_thousandth_comes_as_near_as_it_says(real_pair, tmp_path):
    """The cosine of the embeddings, in README and docs/budgets.md, is what the demo prints."""
    base, tuned = real_pair
    diff = tmp_path / "thousandth.dpk"
    diffpack.extract(base, tuned, diff, budget="0.1%", files="model")
    near = dict(demo.nearness(base, tuned, {"thousandth": diff}))
    assert near["thousandth"].mean() >= demo.NEAR
    said, alone = f"{near['thousandth'].mean():.3f}", f"{near[demo.BASE].mean():.3f}"
    number, cosine, of_the_base = re.search(
        r"in \*\*(.*?)\*\* of the base's.*? is \*\*(.*?)\*\* \(the base\s+alone: (.*?)\)", README
    ).groups()
    assert (number, cosine, of_the_base) == ("0.1 %", said, alone)
    page = (ROOT / "docs" / "budgets.md").read_text()
    assert f"on average **{said}** at 0.1 % of the base's bytes (lowest {near['thousandth'].min():.3f})" in page
