"""The benchmark of reports runs whole processes on files, and compares the bytes they tell with those of the files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import diffpack
from benchmarks import report
from tests.tools.models import model, tune, write_safetensors


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    base = model()
    for at in range(3):
        diffpack.extract(base, tune(base, 0.1, at), tmp_path / f"task{at}.dpk")
    return tmp_path


def test_bytes_that_are_not_those_of_the_files_are_counted(folder):
    assert report.wrong_bytes(folder) == 0
    (folder / "notes.txt").write_text("no diff: a file whose bytes nobody reports")
    assert report.wrong_bytes(folder) == 2  # the sum, and how many there are


def test_a_report_is_run_and_timed(folder):
    seconds, megabytes = report.best([str(folder)], 1)
    assert 0 < seconds < 60
    assert megabytes > 1


def test_all_claims_are_made_of_few_tasks(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "TASKS", 2)
    monkeypatch.setattr(report, "MANY", 5)
    monkeypatch.setattr(report, "ROUNDS", 1)
    monkeypatch.setattr(report, "MANY_ROUNDS", 1)
    weights = np.random.default_rng(0).standard_normal((300, 40)).astype(np.float32)
    base = write_safetensors(tmp_path / "base.safetensors", {"layers.0.w": weights})
    work = tmp_path / "work"
    work.mkdir()
    found = report.claims(base, work)
    assert len(found) == 9
    assert found[-1].found == 0
    assert {claim.most for claim in found} == {2.0, 1.0, 20.0, 300.0, 0}
