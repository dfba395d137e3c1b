"""`diffpack extract` of several fine-tunes: where their diffs go, what is said, and what one of them fails with."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import diffpack
from diffpack.checkpoints import weights_file
from diffpack_cli.progress import Run
from diffpack_cli.several import KEYS_OF_SEVERAL
from diffpack_cli.stored import KEYS
from tests.cli.test_process import on_terminal
from tests.tools.command_line import fails, ok, run
from tests.tools.models import model, tune, write_safetensors, write_shards

SEVERAL = ("extract", "--base", "base.safetensors")
BOTH = ("--tuned", "runs/a.safetensors", "--tuned", "runs/b")


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a base and a folder of fine-tunes, where commands run."""
    monkeypatch.chdir(tmp_path)
    write_safetensors(tmp_path / "base.safetensors", model())
    (tmp_path / "runs").mkdir()
    write_safetensors(tmp_path / "runs" / "a.safetensors", tune(model()))
    write_shards(tmp_path / "runs" / "b", {"x.safetensors": tune(model(), seed=2)})
    return tmp_path


def alone(tuned: str, *options: str) -> bytes:
    ok(*SEVERAL, "--tuned", tuned, "-o", "alone.dpk", "--force", *options)
    return Path("alone.dpk").read_bytes()


@pytest.mark.parametrize("options", [(), ("--density", "1%", "--values", "f16"), ("--no-layout", "--meta", "k=v")])
@pytest.mark.parametrize("tuned", [BOTH, ("--tuned-each", "runs")])
def test_each_is_the_diff_of_a_run_of_its_own(work, options, tuned):
    ok(*SEVERAL, *tuned, "-o", "diffs", *options)
    assert sorted(os.listdir("diffs")) == ["a.dpk", "b.dpk"]
    assert Path("diffs/a.dpk").read_bytes() == alone("runs/a.safetensors", *options)
    assert Path("diffs/b.dpk").read_bytes() == alone("runs/b", *options)


def test_without_a_folder_they_are_written_here(work, monkeypatch):
    monkeypatch.chdir(work / "runs")
    ok("extract", "--base", "../base.safetensors", "--tuned", "a.safetensors", "--tuned", "b", "-q")
    assert sorted(os.listdir()) == ["a.dpk", "a.safetensors", "b", "b.dpk"]


def test_one_tuned_is_written_to_a_file_and_one_in_a_folder_to_a_folder(work):
    ok(*SEVERAL, "--tuned", "runs/b", "-o", "x")
    assert Path("x").is_file()
    (work / "runs" / "a.safetensors").unlink()
    ok(*SEVERAL, "--tuned-each", "runs", "-o", "y")
    assert os.listdir("y") == ["b.dpk"]


def test_the_base_among_them_is_passed_over(work):
    write_safetensors(work / "runs" / "base.safetensors", model())
    done = run("extract", "--base", "runs/../runs/base.safetensors", "--tuned-each", "runs", "-o", "diffs")
    assert (done.exit_code, sorted(os.listdir("diffs"))) == (0, ["a.dpk", "b.dpk"])
    assert done.stderr == "diffpack: passed over: 1 item: runs/base.safetensors (the base)\n"


def test_what_one_fails_with_is_told_and_the_others_are_stored(work):
    write_safetensors(work / "runs" / "adapter.safetensors", {"m.lora_A.weight": np.ones((2, 2), np.float32)})
    (work / "runs" / "cut.safetensors").write_bytes((work / "runs" / "a.safetensors").read_bytes()[:-9])
    done = run(*SEVERAL, "--tuned-each", "runs", "-o", "diffs")
    assert done.exit_code == 2  # that of the first that failed
    assert sorted(os.listdir("diffs")) == ["a.dpk", "b.dpk"]
    errors = done.stderr.splitlines()
    assert errors[0].startswith("diffpack: error: adapter: runs/adapter.safetensors: lacks 100 % of the base's entries")
    assert re.match(r"diffpack: error: cut: runs/cut.safetensors: .*", errors[1])
    assert errors[-1] == "diffpack: 2 of 4 failed; the others are stored"
    assert done.stdout.count("exact") == 2
    done = run(*SEVERAL, "--tuned", "runs/cut.safetensors", "--tuned", "no", "-o", "none")
    assert (done.exit_code, done.stdout, Path("none").exists()) == (1, "", False)
    assert done.stderr.splitlines()[-1] == "diffpack: 2 of 2 failed; none is stored"
    done = run(*SEVERAL, "--tuned-each", "runs", "-o", "diffs", "-q", "--force")
    assert (done.exit_code, done.stdout, len(done.stderr.splitlines())) == (2, "", 2)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), r"Missing option '--tuned'"),
        ((*BOTH, "-o", "-"), "several diffs do not go to standard output"),
        ((*BOTH, "-o", "base.safetensors"), "base.safetensors: no folder"),
        ((*BOTH, "-o", "x.dpk"), "x.dpk: called as a diff"),
        ((*BOTH, "-o", "no/where"), "its folder no does not exist"),
        ((*BOTH, "--tuned", "a.bin"), "runs/a.safetensors and a.bin would both become a.dpk"),
        ((*BOTH, "-o", "x", "--top-k", "-1"), "top-k is a count"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_read(work, args, message):
    fails(2, message, *SEVERAL, *args)
    assert sorted(os.listdir()) == ["base.safetensors", "runs"]


def test_existing_outputs_need_force(work):
    ok(*SEVERAL, "--tuned-each", "runs", "-o", "diffs")
    fails(2, "diffs/a.dpk: exists already; use --force", *SEVERAL, *BOTH, "-o", "diffs")
    ok(*SEVERAL, *BOTH, "-o", "diffs", "--force")


def test_json_is_one_object_with_the_documented_members(work):
    shown = json.loads(ok(*SEVERAL, *BOTH, "-o", "diffs", "--json"))
    assert set(shown) == {key.partition("[")[0] for key in KEYS_OF_SEVERAL}
    assert [item["tuned"] for item in shown["diffs"]] == ["a", "b"]
    assert shown["failed"] == shown["passed_over"] == shown["notes"] == []
    top = {re.split(r"[.\[]", key)[0] for key in KEYS}
    assert set(shown["diffs"][0]) == top | {"tuned"}
    for item in shown["diffs"]:
        assert item["path"] == f"diffs/{item['tuned']}.dpk"
        assert item["bytes"] == os.path.getsize(item["path"])
    done = run(*SEVERAL, *BOTH, "--tuned", "no.bin", "-o", "diffs", "--json", "--force")
    assert done.exit_code == 1
    failed = {key.partition(".")[2] for key in KEYS_OF_SEVERAL if key.startswith("failed[]")}
    [item] = json.loads(done.stdout)["failed"]
    assert set(item) == failed
    assert (item["tuned"], item["exit_code"]) == ("no", 1)


def test_verbose_tells_what_each_stage_of_each_took(work):
    told = run(*SEVERAL, *BOTH, "-o", "diffs", "-v").stderr
    for name in "ab":
        for stage in ("scanning", "choosing", "coding", "counting"):
            assert re.search(rf"^time: {name}: {stage} \d+\.\d\d s$", told, re.MULTILINE), told
    assert re.search(r"^time: \d+\.\d\d s in all$", told, re.MULTILINE)


def test_the_global_options_hold_for_each(work, monkeypatch):
    mapped = []
    plain = weights_file.WeightsFile.__init__
    monkeypatch.setattr(
        weights_file.WeightsFile, "__init__",
        lambda self, path, notes=None, *, mmap=True: (mapped.append(mmap), plain(self, path, notes, mmap=mmap))[1],
    )  # fmt: skip
    ok(*SEVERAL, *BOTH, "-o", "diffs", "--no-mmap")
    assert mapped == [False] * 3


def test_a_terminal_shows_one_bar_for_all(work):
    code, shown = on_terminal(*SEVERAL, *BOTH, "-o", "diffs")
    assert code == 0
    assert "a (1 of 2): " in shown
    assert "b (2 of 2): " in shown
    assert shown.count("diffs/a.dpk: ") == 1


def test_calls_to_come_are_taken_to_be_as_long_as_those_that_were():
    class Bar:
        def add_task(self, *_, **__):
            return 0

        def update(self, _, *, description, completed, total):
            self.shown = description, completed, total

    bar, watched = Bar(), Run(runs=3)
    watched.draw_on(bar, "scanning")
    tell = watched.next("a")
    tell("scanning", 50, 100)
    assert bar.shown == ("a (1 of 3): scanning", 50, 300)
    tell("coding", 100, 100)
    watched.next("cannot be read")
    tell = watched.next("c")
    tell("scanning", 10, 200)
    assert bar.shown == ("c (3 of 3): scanning", 110, 300)
    watched.end("counting")
    assert bar.shown == ("c (3 of 3): counting", 300, 300)


def test_what_was_stored_before_a_signal_stays(work):
    large = {f"{at}.weight": np.random.default_rng(at).standard_normal((512, 512), np.float32) for at in range(16)}
    write_safetensors(work / "base.safetensors", large)
    for name in "cdefgh":
        write_safetensors(work / "runs" / f"{name}.safetensors", {n: a * np.float32(1.01) for n, a in large.items()})
    command = [sys.executable, "-m", "diffpack_cli", *SEVERAL, "-o", "diffs"]
    for name in "cdefgh":
        command += ["--tuned", f"runs/{name}.safetensors"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not Path("diffs/c.dpk").exists():
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate()
    assert process.returncode == 143
    kept = sorted(os.listdir("diffs"))
    assert 1 <= len(kept) < 6
    assert all(name.endswith(".dpk") for name in kept)
    for name in kept:
        diffpack.verify(f"diffs/{name}", "base.safetensors")
    said = r"diffpack: error: stopped by SIGTERM( \(diffs with \d of 6 diffs is written\))?"
    assert re.fullmatch(said, told.strip()), told
