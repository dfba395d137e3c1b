"""What `make bench-live` does, in small, and that its page tells what is missed."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("transformers")

from benchmarks.live import measure, plot, results
from benchmarks.live.results import Row


@pytest.mark.real
@pytest.mark.parametrize("part", ["switching", "bits", "thousand"])
def test_a_part_is_measured_in_small(part, real_pair, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(measure, "TASKS", 3)
    monkeypatch.setattr(measure, "ROUNDS", 5)
    monkeypatch.setattr(measure, "SWITCHES", 5)
    monkeypatch.setattr(measure, "THOUSAND", 6)
    base = real_pair[0]
    measure.PARTS[part](base / "model.safetensors" if base.is_dir() else base, tmp_path)
    told = [line.split("\t") for line in capsys.readouterr().out.splitlines() if line.count("\t") == 3]
    assert len(told) > 2
    asked = {what: (float(value), most) for what, value, _, most in told if most}
    assert asked
    for what, (value, most) in asked.items():
        if most == "0":  # what is no matter of time
            assert value == 0, what


def test_what_is_missed_is_said(tmp_path: Path):
    rows = [Row("peers", "a, median", "2", "ms", "1.5", "m"), Row("peers", "diffpack: b, median", "1", "ms", "", "m")]
    results.write(tmp_path / "live.csv", rows)
    assert results.read(tmp_path / "live.csv") == rows
    assert results.table(rows).splitlines()[2:] == ["| a, median | **2 ms, missed** | at most 1.5 |",
                                                    "| diffpack: b, median | 1 ms |  |"]  # fmt: skip
    pytest.importorskip("matplotlib")
    plot.draw(rows, tmp_path / "live.svg")
    assert "2 ms" in (tmp_path / "live.svg").read_text()
