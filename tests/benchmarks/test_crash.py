"""The benchmark of kills in small; and it finds what it is there to find."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from benchmarks.crash import VERBS, Count, measure, report
from diffpack.support import atomic

FOUR = [verb for verb in VERBS if verb.name in ("extract", "apply to a folder of shards", "apply to .h5", "merge")]


def test_killed_verbs_leave_whole_outputs_and_nothing_after_the_next_run(tmp_path, capsys):
    found = measure(20, 0, tmp_path, FOUR)
    text, right = report(found)
    assert right, text
    assert [count.kills for count in found.values()] == [5, 5, 5, 5]
    assert text.splitlines()[-1].startswith("all ")
    assert "20 kills" in text.splitlines()[-1]
    assert "; 0 missing or half" in text
    assert capsys.readouterr().err.count("\n") == len(FOUR)


def test_every_writing_verb_of_the_command_line_is_killed():
    from diffpack_cli.main import VERBS as ALL

    reading = {"stats", "inspect", "verify", "fingerprint", "diff", "completion"}
    assert {verb.args.split()[0] for verb in VERBS} == set(ALL) - reading - {"train"}


def test_leftovers_that_nobody_removes_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic, "sweep", lambda _: None)
    monkeypatch.setattr(atomic.os, "fsync", lambda _: time.sleep(0.2))  # so that most kills meet a temporary file
    text, right = report(measure(8, 0, tmp_path, FOUR[:1]))
    assert not right, text


def test_outputs_that_are_half_or_missing_are_found(tmp_path, monkeypatch):
    def slowly(temporary: Path, target: Path) -> bool:
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink()
        time.sleep(0.4)  # so that most kills meet it
        os.rename(temporary, target)
        temporary.mkdir()
        return True

    monkeypatch.setattr(atomic, "exchange", slowly)
    text, right = report(measure(16, 0, tmp_path, FOUR[1:2]))
    assert not right, text
    assert "; 0 missing" not in text  # 10 are some


@pytest.mark.parametrize("what", ["missing", "half"])
def test_one_wrong_output_is_too_many(what):
    good, bad = Count(), Count()
    good.outputs["old"] += 9
    bad.outputs[what] += 1
    assert report({"a": good})[1]
    assert not report({"a": good, "b": bad})[1]
