"""The benchmark of signals in small; and it finds what it is there to find."""

from __future__ import annotations

from signal import SIGHUP, SIGINT, SIGTERM

import pytest

from benchmarks.signals import VERBS, Count, Verb, how_it_ended, measure, report

FEW = [verb for verb in VERBS if verb.name in ("apply to .bin", "apply to .h5", "convert to scipy")]


def test_stopped_verbs_end_cleanly_and_leave_nothing(tmp_path, capsys):
    found = measure(9, 0, tmp_path, FEW)
    text, right = report(found)
    assert right, text + capsys.readouterr().err
    assert [count.runs for count in found.values()] == [3, 3, 3]
    assert " 0 wrong codes, 0 wrong words, 0 half outputs, 0 leftovers" in text.splitlines()[-1]


PYTHON = 'Traceback (most recent call last):\n  File "<frozen runpy>", line 1, in x\nKeyboardInterrupt\n'
OWN = 'Traceback (most recent call last):\n  File "/x/diffpack_cli/main.py", line 1, in x\nKeyboardInterrupt\n'
IGNORED = (
    "Exception ignored in: <function cb>\nTraceback (most recent call last):\n"
    '  File "<frozen importlib._bootstrap>", line 199, in cb\nKeyboardInterrupt: \n'
)
LINE = "diffpack: error: stopped by "


@pytest.mark.parametrize(
    ("code", "said", "sent", "end", "wrong"),
    [
        (0, "", [SIGINT], "done", ""),
        (0, "note: a\n", [], "done", ""),
        (0, f"{LINE}SIGINT\n", [SIGINT], "done", "words"),
        (130, f"{LINE}SIGINT\n", [SIGTERM, SIGINT], "told", ""),
        (143, f"note: a\n{LINE}SIGTERM (out.dpk is written)\n", [SIGTERM], "told", ""),
        (129, f"{LINE}SIGTERM\n", [SIGHUP, SIGTERM], "told", "words"),
        (129, "", [SIGHUP], "told", "words"),
        (129, f"{LINE}SIGHUP\n{LINE}SIGHUP\n", [SIGHUP], "told", "words"),
        (129, f"{LINE}SIGHUP\nException ignored\n", [SIGHUP], "told", "words"),
        (130, f"{LINE}SIGINT\n", [SIGTERM], "told", "codes"),
        (1, "diffpack: error: a bug\n", [SIGTERM], "told", "codes"),
        (1, OWN, [SIGINT], "told", "codes"),
        (1, PYTHON, [SIGINT], "python", ""),
        (1, PYTHON, [SIGTERM], "told", "codes"),
        (1, PYTHON.replace("KeyboardInterrupt", "OSError"), [SIGINT], "told", "codes"),
        (-2, f"Traceback (most recent call last):\nKeyError: 1\n\n{PYTHON}", [SIGINT], "python", ""),
        (-2, PYTHON, [SIGINT], "python", ""),
        (-1, "Fatal Python error: init_import_site: Failed\nTraceback (most", [SIGINT, SIGHUP], "python", ""),
        (0, IGNORED, [SIGINT], "python", ""),
        (0, IGNORED, [SIGTERM], "done", "words"),
        (0, IGNORED.replace("<frozen importlib._bootstrap>", "/x/cli/main.py"), [SIGINT], "done", "words"),
        (0, f"{IGNORED}more\n", [SIGINT], "done", "words"),
        (-2, OWN, [SIGINT], "at once", "words"),
        (130, f"{PYTHON}{LINE}SIGINT\n", [SIGINT], "told", "words"),
        (-2, "", [SIGINT], "at once", ""),
        (-9, "", [SIGINT], "told", "codes"),
        (-15, "", [SIGINT], "told", "codes"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_an_end_is_told(code, said, sent, end, wrong):
    assert how_it_ended(code, said, sent) == (end, wrong)


def test_every_wrong_thing_is_too_many():
    for name in ("codes", "words", "halves", "left"):
        bad = Count()
        setattr(bad, name, 1)
        assert report({"a": Count()})[1]
        assert not report({"a": Count(), "b": bad})[1]


def test_leftovers_and_wrong_codes_are_found(tmp_path, monkeypatch, capsys):
    """Of a program that takes a signal for an error, and keeps its temporary file."""
    code = """if True:
        import os, signal, sys, tempfile, time
        def stop(*_):
            raise RuntimeError
        for number in (1, 2, 15):
            signal.signal(number, stop)
        descriptor, _ = tempfile.mkstemp()
        time.sleep(0.3)
        os.unlink(_)
    """
    import sys

    monkeypatch.setattr("benchmarks.signals.PROGRAM", [sys.executable, "-c", code])
    monkeypatch.setattr("benchmarks.signals._EARLY_PART", 0)
    verb = Verb("extract", "out.dpk", "extract --base base.safetensors --tuned {v}.safetensors")
    count = measure(6, 1, tmp_path, [verb])["extract"]
    assert count.codes
    assert count.left
    assert "RuntimeError" in capsys.readouterr().err
