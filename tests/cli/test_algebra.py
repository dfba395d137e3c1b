"""The verbs on diffs: every option reaches the library, pipes work, and bad lines are refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

import diffpack
from diffpack.algebra.merge.merge import VALUE_CHOICES
from diffpack.algebra.merge.method import RESCALES
from diffpack.algebra.merge.methods import METHODS
from diffpack.diff.entries import PLAIN_PROFILES
from diffpack_cli import merge, written
from tests.tools.command_line import fails, ok, run
from tests.tools.models import model, tune, write_safetensors


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A chain of three checkpoints, the two diffs between them, and two lossy diffs of the first."""
    monkeypatch.chdir(tmp_path)
    states = [model(), tune(model(), 0.1, 1), tune(tune(model(), 0.1, 1), 0.1, 2)]
    for at, state in enumerate(states):
        write_safetensors(tmp_path / f"{at}.safetensors", state)
    for at in (1, 2):
        diffpack.extract(f"{at - 1}.safetensors", f"{at}.safetensors", f"step{at}.dpk")
        diffpack.extract("0.safetensors", f"{at}.safetensors", f"task{at}.dpk", values="f16")
    return tmp_path


def test_the_choices_are_those_of_the_library():
    assert tuple(METHODS) == merge._METHODS
    assert tuple(VALUE_CHOICES) == merge._VALUES
    assert merge._RESCALES == RESCALES
    assert written._PROFILES == PLAIN_PROFILES


def test_a_chain_there_and_back(work):
    ok("compose", "step1.dpk", "step2.dpk", "-o", "both.dpk", "--meta", "k=v")
    ok("apply", "--base", "0.safetensors", "both.dpk", "-o", "out.safetensors")
    assert (work / "out.safetensors").read_bytes() == (work / "2.safetensors").read_bytes()
    ok("invert", "both.dpk", "-o", "back.dpk")
    ok("apply", "--base", "out.safetensors", "back.dpk", "-o", "start.safetensors")
    assert (work / "start.safetensors").read_bytes() == (work / "0.safetensors").read_bytes()
    assert diffpack.open("both.dpk").metadata == {"k": "v"}


def test_every_option_of_merge_reaches_the_library(work, monkeypatch):
    seen = {}
    monkeypatch.setattr("diffpack_cli.merge._check", lambda *_: None)  # options of several methods at once
    monkeypatch.setattr(diffpack, "merge", lambda *args, **options: seen.update(options) or diffpack.open("task1.dpk"))
    ok(
        "merge", "task1.dpk", "task2.dpk", "-o", "m.dpk", "--base", "0.safetensors", "--method", "della",
        "--weights", "0.5,2", "--no-normalize", "--density", "20%", "--scale", "0.7", "--seed", "3", "--gamma", "5%",
        "--epsilon", "0.1", "--rescale", "norm", "--values", "int8", "--profile", "portable", "--meta", "a=b",
        "--clip", "--force", "--threads", "2",
    )  # fmt: skip
    del seen["progress"]
    assert seen.pop("base").source == "0.safetensors"
    assert seen.pop("notes") == []
    assert seen == {
        "method": "della", "weights": (0.5, 2.0), "normalize": False, "density": 0.2,
        "scale": 0.7, "seed": 3, "gamma": 0.05, "epsilon": 0.1, "rescale": "norm", "values": "int8",
        "clip": True, "profile": "portable", "metadata": {"a": "b"}, "force": True, "threads": 2,
    }  # fmt: skip


def test_sums_beyond_a_dtype_are_refused_or_clipped(work):
    base = {"w": np.full((4, 4), 60000, np.float16)}
    for name, value in (("b", 60000), ("x", 65000), ("y", 64000)):
        write_safetensors(work / f"{name}.safetensors", {"w": np.full_like(base["w"], value)})
    for name in "xy":
        ok("extract", "--base", "b.safetensors", "--tuned", f"{name}.safetensors", "-o", f"{name}.dpk")
    lines = {
        "merge": ["merge", "x.dpk", "y.dpk", "--base", "b.safetensors"],
        "rebase": ["rebase", "x.dpk", "--base", "b.safetensors", "--onto", "y.safetensors"],
    }
    for verb, line in lines.items():
        fails(2, f"{verb}: sums would be infinite in the result: w: 16 F16 entries, up to", *line, "-o", "o.dpk")
        assert not (work / "o.dpk").exists()
        found = json.loads(ok(*line, "-o", "o.dpk", "--clip", "--json"))
        assert found["recipe"]["clipped"] == "16 entries"
        assert any("clipped" in note for note in found["notes"])
        onto = "y.safetensors" if verb == "rebase" else "b.safetensors"
        ok("apply", "--base", onto, "o.dpk", "-o", "out.safetensors", "--force")
        assert (diffpack.load(onto, "o.dpk")["w"] == np.float16(65504)).all()
        (work / "o.dpk").unlink()
    ok("extract", "--base", "b.safetensors", "--tuned", "x.safetensors", "--values", "f16", "-o", "f.dpk")
    found = json.loads(ok("merge", "f.dpk", "f.dpk", "-o", "o.dpk", "--json"))
    assert any("not checked" in note for note in found["notes"])
    found = json.loads(ok("apply", "--base", "b.safetensors", "o.dpk", "-o", "inf.safetensors", "--json"))
    assert any("16 of the result's entries are infinite" in note for note in found["notes"])


def test_a_merge_without_the_base_says_what_it_arrives_at_when_applied(work):
    found = json.loads(ok("merge", "task1.dpk", "task2.dpk", "-o", "m.dpk", "--json"))
    assert found["result"]["fingerprint"] is None
    assert found["shared"] > 0
    applied = json.loads(ok("apply", "--base", "0.safetensors", "m.dpk", "-o", "out.safetensors", "--json"))
    assert applied["sealed"] is False
    assert applied["fingerprint"] == diffpack.fingerprint("out.safetensors")
    assert "the diff records no result" in ok("apply", "--base", "0.safetensors", "m.dpk", "-o", "o2.safetensors")
    assert "(not recorded)" in ok("verify", "m.dpk", "--base", "0.safetensors")
    assert "its fingerprint is not recorded" in ok("inspect", "m.dpk")


def test_diffs_come_and_go_through_pipes(work):
    whole = run("compose", "-", "step2.dpk", "-o", "-", stdin=(work / "step1.dpk").read_bytes())
    assert whole.exit_code == 0
    assert diffpack.open(whole.stdout_bytes).exact
    merged = run("merge", "task1.dpk", "-", "-o", "-", "-q", stdin=(work / "task2.dpk").read_bytes())
    assert not diffpack.open(merged.stdout_bytes).exact


def test_wrong_lines_are_refused(work):
    fails(2, "one diff, not several", "merge", "-", "-", "-o", "x.dpk")
    fails(2, "both want standard output", "compose", "step1.dpk", "-o", "-", "--json")
    fails(2, "not numbers", "merge", "task1.dpk", "-o", "x.dpk", "--weights", "a,b")
    fails(2, "2 weights for 1 diffs", "merge", "task1.dpk", "-o", "x.dpk", "--weights", "1,2")
    fails(2, "a key stands there twice", "invert", "step1.dpk", "-o", "x.dpk", "--meta", "a=1", "--meta", "a=2")
    fails(2, "exists already", "invert", "step1.dpk", "-o", "step2.dpk")
    fails(2, "also an input", "compose", "step1.dpk", "-o", "step1.dpk", "--force")
    fails(10, "not made on the result", "compose", "step2.dpk", "step1.dpk", "-o", "x.dpk")
    fails(
        10, "not the base", "rebase", "step1.dpk", "--base", "1.safetensors", "--onto", "2.safetensors", "-o", "x.dpk"
    )
    fails(1, "give the diff's base", "rebase", "step1.dpk", "--onto", "1.safetensors", "-o", "x.dpk")
    fails(1, "give the base", "merge", "step1.dpk", "task1.dpk", "-o", "x.dpk")
    assert not (work / "x.dpk").exists()


def test_remarks_about_the_inputs_are_told(work):
    torch = pytest.importorskip("torch")
    for at in (0, 1):
        arrays = {name: torch.tensor(value) for name, value in diffpack.load(f"{at}.safetensors", _nothing(at)).items()}
        torch.save({"state_dict": arrays, "step": 7}, f"{at}.pt")
    ok("extract", "--base", "0.pt", "--tuned", "1.pt", "-o", "p.dpk")
    for line in (["invert", "p.dpk"], ["compose", "p.dpk"], ["rebase", "p.dpk", "--onto", "0.pt"]):
        found = json.loads(ok(*line, "--base", "0.pt", "-o", "o.dpk", "--force", "--json"))
        assert any("found under 'state_dict'" in note for note in found["notes"]), line


def _nothing(at):
    return diffpack.extract(f"{at}.safetensors", f"{at}.safetensors")


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        (["--weight", "task1.dpk=0.5"], {"weights": [0.5, 1.0]}),
        (["--weight", "./task2.dpk=0.5"], {"weights": [1.0, 0.5]}),
        (["--weight", "task1.dpk:embed=0.5", "--weight", "task1.dpk=2"], {"weights": [{"embed": 0.5, "*": 2.0}, 1.0]}),
        (["--weight", "task1.dpk=2", "--weight", ":e=0,1"], {"weights": [{"e": [0, 1], "*": 2}, {"e": [0, 1]}]}),
        (["--weights", "2,3", "--weight", "task2.dpk:a:b=4"], {"weights": [2.0, {"a:b": 4.0, "*": 3.0}]}),
        (["--weight", "1"], {"weights": [1.0, 1.0]}),
        (["--density", "20%"], {"density": 0.2}),
        (["--density", "20%", "--density", "task1.dpk=0.5"], {"density": [0.5, 0.2]}),
        (["--density", "task1.dpk=50%,10%"], {"density": [[0.5, 0.1], None]}),
        (["--lambda", "0.3"], {"scale": 0.3}),
        (["--t", "0.3"], {"t": 0.3}),
        (["--t", "0,0.5", "--t", ":embed=1"], {"t": {"embed": 1.0, "*": [0.0, 0.5]}}),
        (["--t", "embed=1", "--t", "0.5"], {"t": {"embed": 1.0, "*": 0.5}}),
        (["--exclude", "head*", "--mix", "a", "--mix", "b"], {"exclude": ("head*",), "mix": ("a", "b")}),
        (["--take", "head=x=task2.dpk", "--take", "embed=task1.dpk"], {"take": {"head=x": 1, "embed": 0}}),
    ],
)
def test_numbers_and_patterns_of_merge_reach_the_library(line, seen, work, monkeypatch):
    found = {}
    monkeypatch.setattr("diffpack_cli.merge._check", lambda *_: None)  # options of several methods at once
    monkeypatch.setattr(diffpack, "merge", lambda *args, **options: found.update(options) or diffpack.open("task1.dpk"))
    ok("merge", "task1.dpk", "task2.dpk", "-o", "m.dpk", *line)
    assert {name: found[name] for name in seen} == seen


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["--weight", "task3.dpk=1"], "--weight: task3.dpk is none of the diffs"),
        (["--weight", "embed=1"], "a pattern of tensor names begins with a colon"),
        (["--weight", "task1.dpk=a"], "does not end with a number"),
        (["--weight", "task1.dpk"], "does not end with a number"),
        (["--weight", "task1.dpk=1", "--weight", "./task1.dpk=2"], "stands there twice"),
        (["--weights", "1,2", "--weight", "task1.dpk=2"], "stands there twice"),
        (["--weights", "1", "--weight", ":embed=2"], "1 weights for 2 diffs"),
        (["--density", "0.5", "--density", "0.6"], "the number for all stands there twice"),
        (["--take", "head"], "does not end with =DIFF"),
        (["--take", "=task1.dpk"], "does not end with =DIFF"),
        (["--take", "embed=task1.dpk", "--take", "embed=task2.dpk"], "to be taken from several diffs"),
        (["--take", "nothing=task1.dpk"], "take: no tensor is called nothing"),
        (["--exclude", "nothing"], "exclude: no tensor is called nothing"),
        (["--weight", ":nothing=1"], "weight: no tensor is called nothing"),
        (["--method", "slerp"], "slerp needs t"),
        (["--method", "nuslerp"], "'nuslerp' is not one of"),
    ],
)
def test_numbers_and_patterns_that_do_not_fit_are_refused(line, said, work):
    fails(2, said, "merge", "task1.dpk", "task2.dpk", "-o", "m.dpk", *line)
    assert not (work / "m.dpk").exists()


def test_merge_needs_diffs_or_a_file(work):
    fails(2, "name the diffs to merge", "merge", "-o", "m.dpk")
    fails(
        2, "2 of the diffs are called so", "merge", "task1.dpk", "task1.dpk", "-o", "m.dpk", "--weight", "task1.dpk=1"
    )
