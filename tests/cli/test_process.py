"""The command line as a process of its own: terminals, pipes, signals, full disks, the time it takes to start."""

from __future__ import annotations

import os
import pty
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import diffpack
from tests.tools.models import model, tune, write_safetensors

PROGRAM = [sys.executable, "-m", "diffpack_cli"]
EXTRACT = ("extract", "--base", "base.safetensors", "--tuned", "tuned.safetensors")
APPLY = ("apply", "--base", "base.safetensors")


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a base, a tuned checkpoint and their diff, where commands run."""
    monkeypatch.chdir(tmp_path)
    write_safetensors(tmp_path / "base.safetensors", model())
    write_safetensors(tmp_path / "tuned.safetensors", tune(model()))
    diffpack.extract("base.safetensors", "tuned.safetensors", "task.dpk")
    return tmp_path


def test_the_module_is_the_command(work):
    for module in ("diffpack", "diffpack_cli"):
        made = subprocess.run(
            [sys.executable, "-m", module, *EXTRACT, "-o", f"{module}.dpk", "-q"], check=True, capture_output=True
        )
        assert made.stdout == made.stderr == b""
        assert (work / f"{module}.dpk").read_bytes() == (work / "task.dpk").read_bytes()
        told = subprocess.run([sys.executable, "-m", module, "distill"], capture_output=True, text=True, check=False)
        assert (told.returncode, told.stderr.splitlines()[0]) == (2, "diffpack: error: No such command 'distill'.")


def test_a_diff_to_stdout(work):
    done = subprocess.run([*PROGRAM, *EXTRACT, "-o", "-"], capture_output=True, check=True)
    assert done.stdout == (work / "task.dpk").read_bytes()
    assert done.stderr.decode().startswith("standard output: ")
    assert not subprocess.run([*PROGRAM, *EXTRACT, "-o", "-", "-q"], capture_output=True, check=True).stderr
    assert sorted(os.listdir()) == ["base.safetensors", "task.dpk", "tuned.safetensors"]


def on_terminal(*args: str) -> tuple[int, str]:
    """Run with a terminal as every standard stream; give the exit code and what it shows."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen([*PROGRAM, *args], stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 1 << 16)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    return process.wait(), shown.decode()


def test_terminals(work):
    assert on_terminal(*EXTRACT, "-o", "-")[0] == 2
    assert "is not written to a terminal" in on_terminal(*EXTRACT, "-o", "-")[1]
    assert "which is a terminal" in on_terminal("inspect", "-")[1]
    code, shown = on_terminal(*EXTRACT, "-o", "a.dpk")
    assert code == 0
    assert "scanning" in shown
    assert "\x1b[" in shown
    for switch in ("--no-progress", "-q"):
        code, shown = on_terminal(*EXTRACT, "-o", f"{switch}.dpk", switch)
        assert code == 0
        assert "scanning" not in shown
        assert "\x1b[" not in shown


def test_no_progress_in_a_pipe(work):
    done = subprocess.run([*PROGRAM, *EXTRACT, "-o", "a.dpk"], capture_output=True, check=True)
    assert done.stderr == b""


def test_completion_completes():
    words = {"_DIFFPACK_COMPLETE": "bash_complete", "COMP_WORDS": "diffpack ins", "COMP_CWORD": "1"}
    done = subprocess.run(PROGRAM, env={**os.environ, **words}, capture_output=True, text=True, check=True)
    assert done.stdout == "plain,inspect\n"


@pytest.mark.parametrize("args", [["--help"], ["extract", "--help"], ["completion", "zsh"]])
def test_help_is_quick_and_loads_nothing_heavy(args):
    def seconds() -> float:
        start = time.perf_counter()
        subprocess.run([*PROGRAM, *args], capture_output=True, check=True)
        return time.perf_counter() - start

    assert min(seconds() for _ in range(5)) < 1
    trace = [sys.executable, "-X", "importtime", "-m", "diffpack_cli", *args]
    loaded = subprocess.run(trace, capture_output=True, text=True, check=True).stderr
    modules = {line.rsplit("|", 1)[1].strip() for line in loaded.splitlines()}
    assert "click" in modules
    assert not {"numpy", "rich", "diffpack", "torch", "blake3"} & modules


def limit_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))


@pytest.mark.parametrize("output", ["full.safetensors", "full.bin", "full.h5", "full", "full.dpk"])
def test_a_full_disk_leaves_nothing(work, output):
    base = {"w": np.zeros((200, 100), np.float32)}
    tuned = {"w": np.random.default_rng(0).standard_normal((200, 100)).astype(np.float32)}
    write_safetensors(work / "base.safetensors", base)
    write_safetensors(work / "tuned.safetensors", tuned)
    diffpack.extract("base.safetensors", "tuned.safetensors", "task.dpk", force=True)
    before = sorted(os.listdir())
    args = EXTRACT if output.endswith(".dpk") else (*APPLY, "task.dpk")
    command = [*PROGRAM, *args, "-o", output]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit_files)
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.match(rf"diffpack: error: \S*{output}\S*: .*cannot be written.*\n", done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(os.listdir()) == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_stdout_that_is_full(work):
    for args in (("stats", "task.dpk"), (*EXTRACT, "-o", "-")):
        with open("/dev/full", "wb") as full:
            done = subprocess.run([*PROGRAM, *args], stdout=full, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 1
        assert done.stderr.startswith("diffpack: error: standard output: cannot be written: No space left")
        assert "Exception" not in done.stderr


def test_a_reader_that_went_away(work):
    for args in (("stats", "task.dpk"), (*EXTRACT, "-o", "-")):
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run([*PROGRAM, *args], stdout=writer, stderr=subprocess.PIPE)
        os.close(writer)
        assert done.returncode == 141
        assert done.stderr == b""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("what", ["extract", "lossy", "apply", "folder", "stdout"])
def test_an_interrupted_run_leaves_nothing(work, what, number):
    rng = np.random.default_rng(0)
    base = {f"{at}.weight": rng.standard_normal((1024, 512)).astype(np.float32) for at in range(24)}
    write_safetensors(work / "base.safetensors", base)
    write_safetensors(work / "tuned.safetensors", {name: array * np.float32(1.001) for name, array in base.items()})
    if what in ("apply", "folder"):
        diffpack.extract("base.safetensors", "tuned.safetensors", "task.dpk", profile="portable", force=True)
    args = {
        "extract": (*EXTRACT, "-o", "new.dpk"),
        "lossy": (*EXTRACT, "-o", "new.dpk", "--density", "0.9", "--values", "f16"),
        "apply": (*APPLY, "task.dpk", "-o", "new.safetensors"),
        "folder": (*APPLY, "task.dpk", "-o", "new"),
        "stdout": (*EXTRACT, "-o", "-"),
    }[what]
    before = sorted(os.listdir())
    process = subprocess.Popen([*PROGRAM, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 30
    while sorted(os.listdir()) == before and process.poll() is None and time.monotonic() < deadline:
        if what == "stdout" and time.monotonic() > deadline - 29.5:  # it writes to an unnamed file: nothing to see
            break
        time.sleep(0.001)
    time.sleep(0.02)
    process.send_signal(number)
    out, err = process.communicate()
    assert process.returncode == 128 + number, err
    assert err.decode() == f"diffpack: error: stopped by {number.name}\n"
    assert what == "stdout" or out == b""  # what a pipe has taken cannot be taken back
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize("output", ["new.safetensors", "new"])
def test_a_signal_at_the_instant_the_temporary_exists(work, output):
    code = """if True:
        import os, signal
        from diffpack_cli.main import main

        def then_interrupted(function):
            def call(path, *args, **options):
                made = function(path, *args, **options)
                if str(path).endswith(".part"):
                    os.kill(os.getpid(), signal.SIGINT)
                return made
            return call

        os.open, os.mkdir = then_interrupted(os.open), then_interrupted(os.mkdir)
        main()
    """
    before = sorted(os.listdir())
    done = subprocess.run([sys.executable, "-c", code, *APPLY, "task.dpk", "-o", output], capture_output=True)
    assert done.returncode == 130, done.stderr
    assert sorted(os.listdir()) == before


def test_ignored_signals_stay_ignored(work):
    """`nohup diffpack ...` goes on when the terminal is closed."""
    code = (
        "import os, signal; signal.signal(signal.SIGHUP, signal.SIG_IGN);"
        "from diffpack_cli.interrupts import raise_on_signals; raise_on_signals();"
        "os.kill(os.getpid(), signal.SIGHUP); print('alive');"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "alive\n"
