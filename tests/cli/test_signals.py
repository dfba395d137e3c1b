"""However many signals arrive, and whenever: cleaned up once, one line said, the exit code of the one that is named."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import diffpack
from tests.tools.models import write_safetensors

PROGRAM = [sys.executable, "-m", "diffpack_cli"]
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
APPLY = ("apply", "--base", "base.safetensors", "d.dpk", "--no-files", "-o")
VERBS = {
    "extract": ("extract", "--base", "base.safetensors", "--tuned", "tuned.safetensors", "-o", "new.dpk"),
    "apply": (*APPLY, "new.safetensors"),
    "torch": (*APPLY, "new.bin"),
    "hdf5": (*APPLY, "new.h5"),
    "folder": (*APPLY, "new"),
    "invert": ("invert", "d.dpk", "-o", "new.dpk"),
    "scipy": ("convert", "d.dpk", "--to", "scipy", "-o", "new"),
    "tasks": ("convert", "d.dpk", "-o", "new.h5"),
}


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with models that take a moment, and a diff."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    base = {f"{at}.weight": rng.standard_normal((512, 512)).astype(np.float32) for at in range(24)}
    write_safetensors(tmp_path / "base.safetensors", base)
    write_safetensors(tmp_path / "tuned.safetensors", {name: array * np.float32(1.001) for name, array in base.items()})
    diffpack.extract("base.safetensors", "tuned.safetensors", "d.dpk", profile="portable").close()
    return tmp_path


@pytest.mark.parametrize("verb", VERBS)
def test_a_storm_of_signals_is_one_signal(work, verb):
    chance = random.Random(verb)
    before = sorted(os.listdir())
    for _ in range(20):  # until it is met before it has published its output
        process = subprocess.Popen([*PROGRAM, *VERBS[verb]], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        while sorted(os.listdir()) == before and process.poll() is None:
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.05))
        sent = [chance.choice(SIGNALS)]
        process.send_signal(sent[0])
        time.sleep(0.02)  # mostly it is handled by then; on a busy machine others come as well before it is
        while process.poll() is None:
            sent.append(chance.choice(SIGNALS))
            process.send_signal(sent[-1])
            time.sleep(chance.choice([0, 0.0002, 0.001, 0.005]))
        out, err = process.communicate()
        assert "Traceback" not in err.decode()
        (output,) = {VERBS[verb][-1]} & set(os.listdir()) or {None}
        assert sorted({*os.listdir()} - {output}) == before
        if output is None:
            break
        shutil.rmtree(output) if os.path.isdir(output) else os.remove(output)
    said = {f"diffpack: error: stopped by {each.name}\n": each for each in sent}
    assert err.decode() in said
    assert process.returncode == 128 + said[err.decode()]
    assert out == b""


def scripted(
    code: str, *args: str, start: str = "import os, signal, sys\nfrom diffpack_cli.start import main\n"
) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", start + code, *args], capture_output=True, text=True)


def test_a_second_signal_does_not_break_into_the_cleaning_up(work):
    code = """if True:
        from diffpack.support import atomic

        remove = atomic.remove

        def interrupted(path):
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
                os.kill(os.getpid(), number)
            remove(path)
            os.kill(os.getpid(), signal.SIGTERM)

        def progress(*_):
            os.kill(os.getpid(), signal.SIGINT)

        atomic.remove = interrupted
        import diffpack_cli.progress
        diffpack_cli.progress.Run.__call__ = progress
        main()
    """
    before = sorted(os.listdir())
    for verb in ("folder", "extract"):
        done = scripted(code, *VERBS[verb], "--threads", "1")
        assert done.returncode == 128 + signal.SIGINT
        assert done.stderr == "diffpack: error: stopped by SIGINT\n"
        assert sorted(os.listdir()) == before


def test_a_signal_while_another_one_is_told_is_ignored(work):
    code = """if True:
        import diffpack_cli.main as program

        report = program.report

        def interrupted(*given):
            os.kill(os.getpid(), signal.SIGTERM)
            code = report(*given)
            os.kill(os.getpid(), signal.SIGHUP)
            return code

        program.report = interrupted
        program._let_go_of_output = lambda: os.kill(os.getpid(), signal.SIGTERM)
        import diffpack_cli.progress
        diffpack_cli.progress.Run.__call__ = lambda *_: os.kill(os.getpid(), signal.SIGINT)
        main()
    """
    done = scripted(code, *VERBS["extract"], "--threads", "1")
    assert done.returncode == 128 + signal.SIGINT
    assert done.stderr == "diffpack: error: stopped by SIGINT\n"


def test_a_signal_that_a_destructor_swallows_is_sent_again(work):
    code = """if True:
        class Careless:
            def __del__(self):
                os.kill(os.getpid(), signal.SIGTERM)
                for _ in range(100):
                    pass

        told = []

        def progress(*_):
            if not told:
                told.append(True)
                Careless()
                import time
                for _ in range(600):
                    time.sleep(0.1)

        import diffpack_cli.progress
        diffpack_cli.progress.Run.__call__ = progress
        main()
    """
    before = sorted(os.listdir())
    done = scripted(code, *VERBS["extract"], "--threads", "1")
    assert done.returncode == 128 + signal.SIGTERM
    assert done.stderr == "diffpack: error: stopped by SIGTERM\n"
    assert sorted(os.listdir()) == before


def test_a_signal_that_somebody_swallows_is_followed_by_the_next(work):
    code = """if True:
        told = []

        def progress(*_):
            told.append(True)
            if len(told) < 3:
                try:
                    os.kill(os.getpid(), (signal.SIGHUP, signal.SIGTERM)[len(told) - 1])
                    for _ in range(100):
                        pass
                except SystemExit:
                    if len(told) == 2:
                        raise

        import diffpack_cli.progress
        diffpack_cli.progress.Run.__call__ = progress
        main()
    """
    done = scripted(code, *VERBS["extract"], "--threads", "1")
    assert done.returncode == 128 + signal.SIGHUP
    assert done.stderr == "diffpack: error: stopped by SIGHUP\n"


@pytest.mark.parametrize("kind", ["except", "gone", "other error", "panic", "generator"])
def test_a_signal_whose_exception_gets_lost_stops_the_run_all_the_same(work, kind):
    code = (
        f"kind = {kind!r}\n"
        + """if True:
        import time

        class Panic(BaseException):
            pass

        def stopped():
            os.kill(os.getpid(), signal.SIGTERM)
            for _ in range(100):
                pass

        def careless():
            try:
                yield
            finally:
                try:
                    stopped()
                except BaseException:
                    pass

        told = []

        def progress(*_):
            if told:
                return
            told.append(True)
            if kind in ("other error", "panic"):
                try:
                    stopped()
                except BaseException:
                    pass
                raise (RuntimeError if kind == "other error" else Panic)("a library's own")
            if kind == "except":
                try:
                    stopped()
                except BaseException:
                    pass
            if kind == "gone":
                import weakref
                class Thing: pass
                thing = Thing()
                seen = weakref.ref(thing, lambda _: stopped())
                del thing
            if kind == "generator":
                held = careless()
                next(held)
                del held
            for _ in range(600):
                time.sleep(0.1)

        import diffpack_cli.progress
        diffpack_cli.progress.Run.__call__ = progress
        main()
    """
    )
    before = sorted(os.listdir())
    done = scripted(code, *VERBS["extract"], "--threads", "1")
    assert done.returncode == 128 + signal.SIGTERM
    assert done.stderr == "diffpack: error: stopped by SIGTERM\n"
    assert sorted(os.listdir()) == before


WHILE_LOADING = """if True:
    import os, signal, sys

    class Stop:
        def find_spec(self, name, path=None, target=None):
            if name == NAME:
                for number in NUMBERS:
                    os.kill(os.getpid(), number)

    sys.meta_path.insert(0, Stop())
    from diffpack_cli.start import main
    main()
"""


@pytest.mark.parametrize(
    "name", ["click", "diffpack_cli.errors", "diffpack_cli.extract", "numpy", "blake3", "diffpack.diff.diff"]
)
@pytest.mark.parametrize("numbers", [(2,), (15,), (1,), (15, 1, 2, 15)], ids=str)
def test_a_signal_while_something_is_loaded(work, name, numbers):
    before = sorted(os.listdir())
    done = scripted(
        WHILE_LOADING.replace("NAME", repr(name)).replace("NUMBERS", repr(numbers)), *VERBS["extract"], start=""
    )
    stopped_by = signal.Signals(done.returncode - 128)
    assert stopped_by in numbers
    assert done.stderr == f"diffpack: error: stopped by {stopped_by.name}\n"
    assert done.stdout == ""
    assert sorted(os.listdir()) == before


def test_a_signal_before_anything_is_loaded_ends_the_process_without_a_word():
    for number in SIGNALS:
        code = WHILE_LOADING.replace("NAME", "'diffpack_cli.interrupts'").replace("NUMBERS", f"[{int(number)}]")
        done = scripted(code, "--version", start="")
        assert (done.returncode, done.stdout, done.stderr) == (-number, "", "")


def test_what_is_ignored_when_a_process_begins_stays_ignored():
    code = """if True:
        import os, signal
        for number in (signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        import sys
        sys.argv[1:] = ["--version"]
        import diffpack_cli.start, diffpack_cli.main
        write = diffpack_cli.main.cli.main

        def run(*args):
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGINT)
            write(*args)

        diffpack_cli.main.cli.main = run
        diffpack_cli.start.main()
    """
    done = scripted(code, start="")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("diffpack ")


def test_a_signal_while_an_error_is_told_has_its_own_line(work):
    code = """if True:
        import diffpack_cli.main as program

        def told(error, session):
            os.kill(os.getpid(), signal.SIGHUP)
            raise AssertionError

        program.report = told
        main()
    """
    done = scripted(code, "verify", "missing.dpk")
    assert (done.returncode, done.stdout) == (128 + signal.SIGHUP, "")
    assert done.stderr == "diffpack: error: stopped by SIGHUP\n"


def test_other_mistakes_of_destructors_are_told_as_ever():
    code = """if True:
        class Wrong:
            def __del__(self):
                1 / 0

        from diffpack_cli.interrupts import raise_on_signals
        raise_on_signals()
        Wrong()
    """
    done = scripted(code)
    assert done.returncode == 0
    assert "ZeroDivisionError" in done.stderr
