"""The trainer's table in small, and its claims, counted from the rows as they are, also where they fail."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools import ROOT

pytest.importorskip("transformers")
pytest.importorskip("sklearn")

from benchmarks.train import __main__ as table
from benchmarks.train import cost, measure
from benchmarks.train.plans import POSTHOC, RATES, Plan, plans
from diffpack.train import METHODS
from diffpack.train.loop.peak_memory import resident
from tests.tools.tiny_bert import make_model, make_texts

HEAD = "task,method,variant,density,seed,accuracy,share_without_head_pct"
FULL, SPARSE, STRUCTURED, PLAIN = (
    "full,,0",
    "sparse,fisher,0.005",
    "diff-pruning-structured,,0.005",
    "non-adaptive,,0.005",
)


def count(tmp_path: Path, rows: list[str], *page: Path) -> tuple[int, dict[str, list[str]]]:
    """Run the command; give its exit code and its lines by their first cell."""
    source = tmp_path / "rows.csv"
    source.write_text("\n".join([HEAD, *rows]) + "\n")
    command = [sys.executable, "-m", "benchmarks.train.claims", source, *page]
    done = subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True)
    assert not done.stderr
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines()[2:]]
    return done.returncode, {line[0]: line[1:] for line in lines}


def row(task: str, key: str, seed: int, accuracy: float, share: float = 0.25) -> str:
    return f"{task},{key},{seed},{accuracy},{share}"


@pytest.mark.parametrize(("sparse", "held"), [(0.891, True), (0.889, False)])
def test_means_are_of_tasks_over_the_seeds_both_have(tmp_path, sparse, held):
    rows = [
        row("a", FULL, 0, 0.90), row("a", SPARSE, 0, sparse - 0.01), row("a", FULL, 1, 0.90),
        row("a", SPARSE, 1, sparse + 0.01), row("a", FULL, 2, 0.10), row("b", FULL, 0, 0.80),
        row("b", SPARSE, 0, sparse - 0.10), row("c", SPARSE, 0, 0.0),
    ]  # fmt: skip
    code, lines = count(tmp_path, rows)
    bound, measured, over, mark = lines["sparse (fisher) 0.5 % less full"]
    assert (bound, over, mark) == ("at least -1.0", "2 tasks, 3 pairs", "ok" if held else "MISS")
    points = 100 * sparse - 90  # of both tasks; task a's seeds differ by 2 points: variance 2, over 2 and 1 pairs
    assert measured == f"{points:+.2f} ± {(2 / 2 + 2 / 1) ** 0.5 / 2:.2f}"
    assert code == (0 if held else 1)
    assert lines["sparse (fisher) 0.5 % less last-layer"][1] == "not measured"


def test_the_best_sparse_method_is_of_those_measured_most_widely(tmp_path):
    rows = [row(task, key, 0, 0.9) for task in "ab" for key in (FULL, SPARSE)] + [row("a", STRUCTURED, 0, 0.99, 0.5)]
    code, lines = count(tmp_path, [*rows, row("a", PLAIN, 0, 0.99)])
    assert lines["sparse (fisher) 0.5 %: the largest file without its head, % of the base's bytes"][1] == "0.250"
    structured = lines["diff-pruning-structured 0.5 % less non-adaptive 0.5 %"]
    assert structured == ["above 0", "+0.00", "1 task, 1 pair", "MISS"]  # equal is not above
    assert code == 1
    rows.append(row("b", STRUCTURED, 0, 0.99, 0.5))
    code, lines = count(tmp_path, rows)
    best = "best by these rows: diff-pruning-structured 0.5 %"
    assert lines[f"{best} less full"] == ["at least -1.0", "+9.00", "2 tasks, 2 pairs", "ok"]
    assert lines[f"{best}: the largest file without its head, % of the base's bytes"][3] == "MISS"
    _, lines = count(tmp_path, [*rows, row("c", SPARSE, 0, 0.9, share=0.41)])
    assert lines["sparse (fisher) 0.5 %: the largest file without its head, % of the base's bytes"][3] == "MISS"


def test_the_page_takes_the_lines_between_its_marks(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- claims: begin -->\nold\n<!-- claims: end -->\nafter\n")
    count(tmp_path, [row("a", FULL, 0, 0.9), row("a", SPARSE, 0, 0.9)], page)
    text = page.read_text()
    assert text.startswith("before\n<!-- claims: begin -->\n\n| accuracy, points |")
    assert text.endswith("|\n\n<!-- claims: end -->\nafter\n")
    assert "old" not in text


def test_every_method_has_rows_and_none_is_planned_twice():
    keys = [plan.key for plan in plans()]
    assert len(set(keys)) == len(keys)
    assert set(RATES) == set(METHODS)
    assert {plan.method for plan in plans()} == {*METHODS, *POSTHOC}


def test_rows_are_appended_one_by_one_and_none_twice(tmp_path, monkeypatch, capsys):
    """Post-hoc rows cut down the full fine-tune, and are left out by name where it is gone."""
    cut = [Plan("rte", "posthoc-top-k", "", density) for density in (0.02, 0.1)]
    few = [*cut[:1], Plan("rte", "full"), Plan("rte", "head-only")]
    model = make_model(tmp_path / "model")
    (tmp_path / "rte").mkdir()
    for seed, name in enumerate(("train.tsv", "dev.tsv")):
        make_texts(tmp_path / "rte" / name, 24, seed)
    rows, keep = tmp_path / "rows.csv", tmp_path / "keep"
    monkeypatch.setattr(measure, "EPOCHS", 1)
    arguments = ["--model", model, "--data", tmp_path, "--news", tmp_path, "--keep", keep, "--csv", rows]
    monkeypatch.setattr(sys, "argv", [str(part) for part in ["table", *arguments, "--tasks", "rte", "sst2"]])

    def run(*wanted: Plan) -> tuple[int, str]:
        monkeypatch.setattr(table, "plans", lambda: iter(wanted))
        with pytest.raises(SystemExit) as stop:
            table.main()
        return stop.value.code, capsys.readouterr().out

    code, told = run(*few)
    assert code == 0, told
    assert "no data for sst2" in told
    assert run(*few, cut[1])[0] == 0
    with rows.open(newline="") as file:
        found = [((row["method"], row["density"]), int(row["bytes_without_head"])) for row in csv.DictReader(file)]
    assert len(found) == 4
    sizes = dict(found)
    assert sizes.keys() == {("full", "0"), ("head-only", "0"), ("posthoc-top-k", "0.02"), ("posthoc-top-k", "0.1")}
    assert sizes["posthoc-top-k", "0.02"] < sizes["posthoc-top-k", "0.1"] < sizes["full", "0"]
    (kept,) = keep.iterdir()
    kept.unlink()
    code, told = run(*few, Plan("rte", "posthoc-budget", "", 0.02))
    assert (code, told.count("left out")) == (1, 2)  # the task without data, the row without its fine-tune
    assert str(kept) in told


@pytest.mark.skipif(resident(peak=True) is None, reason="this system does not tell the peak of resident memory")
def test_what_a_step_costs_is_measured(material):
    folder, _, _ = material
    assert cost.memory(folder, "sparse")["peak"] >= 0
    assert cost.memory(folder, "picking")["peak"] >= 0
    found = cost.seconds(folder)
    assert found["full"] > 0
    assert found["sparse"] > 0
