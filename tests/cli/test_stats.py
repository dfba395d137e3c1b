"""`diffpack stats`: as wide as the terminal, several formats, a gate, and an exit code that says what was wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import diffpack
from tests.tools.command_line import fails, ok, run
from tests.tools.models import model, tune, write_safetensors


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a base, and a folder of three tasks with long names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    base = model()
    write_safetensors(tmp_path / "base.safetensors", base)
    write_safetensors(tmp_path / "other.safetensors", model(9))
    (tmp_path / "tasks").mkdir()
    for at in range(3):
        name = f"a-task-with-a-name-that-no-terminal-is-wide-enough-for-{at}.dpk"
        diffpack.extract(base, tune(base, 0.05, at), tmp_path / "tasks" / name)
    return tmp_path


@pytest.mark.parametrize("columns", [80, 60])
@pytest.mark.parametrize("options", [(), ("--tensors",), ("--by", "module")], ids=str)
def test_rows_keep_to_the_width_and_numbers_are_whole(work, monkeypatch, columns, options):
    wide = ok("stats", "tasks", *options)
    monkeypatch.setenv("COLUMNS", str(columns))
    narrow = ok("stats", "tasks", *options)
    numbers = set(re.findall(r"\d[\d.,]* (?:%|kB|bytes)|\d{2,}", wide))
    tables = [block.splitlines() for block in narrow.split("\n\n")]
    for lines in tables:
        cut = [line for line in lines if "…" in line]
        assert all(len(line) <= columns for line in cut), cut
        for line in cut:
            assert set(re.findall(r"\d[\d.,]* (?:%|kB|bytes)", line)) <= numbers
    first = tables[0][2:]
    assert all(len(line) <= columns for line in first)
    assert first[1].startswith("tasks/")
    assert "-0.dpk" in first[1]


def test_each_format_is_printed_alone(work):
    assert json.loads(ok("stats", "tasks", "--json"))["together"]["diffs"] == 3
    assert ok("stats", "tasks", "--csv").startswith("path,exact,changed,counted,")
    assert ok("stats", "tasks", "--markdown").startswith("**base ")
    fails(2, "--json, --csv and --markdown are three ways", "stats", "tasks", "--json", "--csv")
    fails(2, "--csv has lines of tensors or of sums", "stats", "tasks", "--csv", "--tensors", "--by", "layer")


def test_a_damaged_file_is_a_row_and_the_exit_code_is_1(work):
    (work / "tasks" / "broken.dpk").write_bytes(b"\x89DPK")
    ran = run("stats", "tasks")
    assert ran.exit_code == 1
    assert re.search(r"tasks/broken\.dpk +4 bytes +damaged", ran.stdout)
    assert "3 full copies" in ran.stdout
    assert len(re.findall(r"^diffpack: error: tasks/broken\.dpk: ", ran.stderr, re.MULTILINE)) == 1
    told = json.loads(run("stats", "tasks", "--json").stdout)
    assert [row["path"] for row in told["problems"]] == ["tasks/broken.dpk"]
    assert len(told["diffs"]) == 3
    fails(11, "tasks/broken.dpk: ", "stats", "tasks/broken.dpk")


def test_of_another_base_is_a_row_too(work):
    diffpack.extract("other.safetensors", tune(model(9), 0.1), "foreign.dpk")
    ran = run("stats", "tasks", "foreign.dpk", "--base", "base.safetensors")
    assert ran.exit_code == 1
    assert re.search(r"foreign\.dpk +[\d.]+ kB +of another base", ran.stdout)
    assert "base.safetensors: not the base of foreign.dpk" in ran.stderr
    assert run("stats", "tasks", "--base", "base.safetensors").exit_code == 0
    fails(10, "not the base", "stats", "foreign.dpk", "--base", "base.safetensors")


def test_a_gate_says_a_line_for_each_and_exits_with_1(work):
    sizes = {path.as_posix(): path.stat().st_size for path in Path("tasks").iterdir()}
    most = sorted(sizes.values())[1]
    ran = run("stats", "tasks", "--fail-over", str(most), "--fail-over-total", "1kB")
    over = [name for name, size in sorted(sizes.items()) if size > most]
    told = re.findall(r"^diffpack: (.*?): [\d.]+ kB .*?, over ", ran.stderr, re.MULTILINE)
    assert ran.exit_code == 1
    assert told == [*over, "all diffs"]
    assert "3 full copies" in ran.stdout
    assert run("stats", "tasks", "--fail-over", "99%", "--fail-over-total", "1MB").exit_code == 0
    fails(2, "a budget is", "stats", "tasks", "--fail-over", "lots")
    shown = json.loads(run("stats", "tasks", "--json", "--fail-over-total", "1kB").stdout)
    assert shown["exceeded"] == [{"path": None, "bytes": sum(sizes.values()), "most": 1000}]


def test_a_budget_is_told_in_words(work):
    assert re.search(r"budget of 1\.00 MB +[\d.]+ kB .*% +used; \d+ more diffs like these fit", ok(
        "stats", "tasks", "--budget", "1MB"
    ))  # fmt: skip
    assert re.search(r"over by [\d.]+ kB, \d+ diffs too many", ok("stats", "tasks", "--budget", "2kB"))
    fails(2, "a storage budget is a size", "stats", "tasks", "--budget", "3%")


def test_changes_are_counted_where_asked(work):
    dense = tune(model(), 0.9, 3)
    diffpack.extract("base.safetensors", dense, "dense.dpk")
    changed = sum(int((dense[name] != array).sum()) for name, array in model().items())
    assert json.loads(ok("stats", "dense.dpk", "--json"))["diffs"][0]["counted"] is False
    for option in (("--count",), ("--tensors",), ("--by", "dtype")):
        row = json.loads(ok("stats", "dense.dpk", "--json", *option))["diffs"][0]
        assert (row["changed"], row["counted"]) == (changed, True)


def test_without_signs_the_terminal_gets_plain_ones(work, monkeypatch):
    week = tune(model(), 0.1, 1)
    diffpack.extract("base.safetensors", week, "tasks/w1.dpk")
    diffpack.extract(week, tune(week, 0.1, 2), "tasks/w2.dpk")
    assert "└ tasks/w2.dpk" in ok("stats", "tasks")
    monkeypatch.setattr("diffpack_cli.tables._has_signs", lambda: False)
    assert "` tasks/w2.dpk" in ok("stats", "tasks")
    assert ok("stats", "tasks", "--by", "layer").isascii()


def test_the_page_is_written_whole_and_replaces_nothing_unasked(work):
    table = ok("stats", "tasks")
    counted = ok("stats", "tasks", "--html", "report.html", "--budget", "1MB")
    page = Path("report.html").read_text()
    assert counted.startswith(table.splitlines()[0])
    assert page.startswith("<!DOCTYPE html>")
    for path in Path("tasks").iterdir():
        assert f"{path.stat().st_size:,}" in page
    fails(2, "report.html: exists", "stats", "tasks", "--html", "report.html")
    ok("stats", "tasks", "--html", "report.html", "--force", "--budget", "1MB")
    assert Path("report.html").read_text() == page
    assert ok("stats", "tasks", "--html", "-").startswith("<!DOCTYPE html>")
    fails(2, "--html - prints the page alone", "stats", "tasks", "--html", "-", "--json")
    fails(2, "--overlap and --histograms are for the page", "stats", "tasks", "--overlap")


def test_the_page_shows_where_tasks_meet_and_how_far_they_move(work):
    ok("stats", "tasks", "--html", "bare.html")
    ok("stats", "tasks", "--html", "full.html", "--overlap", "--histograms", "--base", "base.safetensors")
    bare, full = Path("bare.html").read_text(), Path("full.html").read_text()
    for heading in ("Overlap", "Sizes of changes"):
        assert f">{heading}<" not in bare
        assert f">{heading}<" in full
