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

import diffpack
from benchmarks.train import __main__ as table
from benchmarks.train import cost, measure, plot, small
from benchmarks.train.plans import BUDGETS, IN_BUDGETS, POSTHOC, RATES, SEEDS, TASKS, Plan, plans
from benchmarks.train.rows import read
from diffpack.train import METHODS
from diffpack.train.loop.peak_memory import resident
from tests.tools.tiny_bert import make_model, make_texts

HEAD = "task,method,variant,density,seed,accuracy,share_without_head_pct,share_pct"
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


def row(task: str, key: str, seed: int, accuracy: float, share: float = 0.25, whole: float = 0.26) -> str:
    return f"{task},{key},{seed},{accuracy},{share},{whole}"


def cut(budget: str) -> str:
    return f"{IN_BUDGETS},{budget},0"


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


@pytest.mark.parametrize(("lost", "whole", "marks"), [(0.5, 0.25, ["ok", "ok"]), (0.6, 0.2501, ["MISS", "MISS"])])
def test_budgets_are_held_to_the_fine_tunes_they_are_cut_from(tmp_path, lost, whole, marks):
    """Over the tasks but rte, which has lines of its own; and each file to the bytes it was to have."""
    lower = 0.5 - lost / 100
    rows = [row(task, SPARSE, 0, 0.5) for task in ("a", "b", "rte")]
    rows += [row(task, FULL, 0, 0.5) for task in ("a", "b", "rte")]
    rows += [row("a", cut("0.25 %"), 0, lower - 0.01, whole=whole), row("b", cut("0.25 %"), 0, lower + 0.01, whole=0.1)]
    rows += [row("b", cut("0.25 %"), 1, 0.0, whole=0.1)]  # a seed without its fine-tune
    rows += [row("rte", cut("0.25 %"), 0, 0.3, whole=0.1), row("a", cut("0.1 %"), 0, 0.486, whole=0.05)]
    code, lines = count(tmp_path, rows)
    quarter = lines["posthoc-budget (0.25 %) less full, without rte"]
    assert quarter == ["at least -0.5", f"{-lost:+.2f}", "2 tasks, 2 pairs", marks[0]]
    assert lines["posthoc-budget (0.1 %) less full, without rte"] == ["at least -1.5", "-1.40", "1 task, 1 pair", "ok"]
    assert lines["posthoc-budget (0.5 %) less full, without rte"] == ["", "not measured", "", ""]
    assert lines["posthoc-budget (0.25 %) less full, rte alone"] == ["", "-20.00", "1 task, 1 pair", ""]
    fullest = lines["posthoc-budget: the fullest file, head and all, of its budget"]
    assert fullest == ["at most 1", f"{whole / 0.25:.4f}", "5 files", marks[1]]
    assert code == (0 if marks == ["ok", "ok"] else 1)


def test_budgets_are_rows_of_their_own_and_one_line_of_the_figure(tmp_path):
    source = tmp_path / "rows.csv"
    rows = [row("a", cut("0.5 %"), 0, 0.92, 0.49), row("a", cut("0.05 %"), 0, 0.9, 0.04)]
    rows += [
        row("a", "posthoc-grid,,0.005", 0, 0.7, 0.27),
        row("a", "adapters,8,0", 0, 0.8),
        row("a", "adapters,64,0", 0, 0.9),
    ]
    source.write_text("\n".join([f"{HEAD},cpu_seconds", *(f"{line},7" for line in rows)]) + "\n")
    found = read(source)
    assert plot.curves(found["a"]) == {
        (IN_BUDGETS, ""): [(0.04, 90.0), (0.49, 92.0)],
        ("posthoc-grid", ""): [(0.27, 70.0)],
        ("adapters", "8"): [(0.25, 80.0)],
        ("adapters", "64"): [(0.25, 90.0)],
    }
    table = plot.table(found).splitlines()
    assert "| posthoc-grid | 0.5 % | 70.0 | 0.27 % | 7 |" in table
    assert "| posthoc-budget (0.05 %) |  | 90.0 | 0.04 % | 7 |" in table
    assert "| posthoc-budget (0.5 %) |  | 92.0 | 0.49 % | 7 |" in table


def test_small_files_stand_beside_one_another_without_the_noisy_task(tmp_path):
    source = tmp_path / "rows.csv"
    rows = [row(task, FULL, seed, 0.9) for task in ("a", "b", "rte") for seed in (0, 1)]
    rows += [row("a", cut("0.25 %"), seed, 0.89, whole=0.24) for seed in (0, 1)]
    rows += [row("b", cut("0.25 %"), 0, 0.92, whole=0.24), row("rte", cut("0.25 %"), 0, 0.1, whole=9)]
    rows += [row("a", SPARSE, 2, 0.9), row("a", "lora,8,0", 1, 0.8, whole=0.14)]  # no fine-tune of seed 2
    source.write_text("\n".join([HEAD, *rows]) + "\n")
    assert small.table(read(source)).splitlines()[2:] == [
        "| posthoc-budget (0.25 %) | cutting | 0.24 | +0.50 | 3 |",  # of two tasks: -1 and +2
        "| lora (8) | training | 0.14 | -10.00 | 1 |",
    ]


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
    trained = {plan.key for plan in plans() if plan.method == "full"}
    assert all(plan.needs.key in trained for plan in plans() if plan.method in POSTHOC)
    budgets = {(plan.task, plan.seed) for plan in plans() if plan.method == IN_BUDGETS}
    assert sum(plan.method == IN_BUDGETS for plan in plans()) == len(budgets) * len(BUDGETS)
    assert budgets == {(task, seed) for task in TASKS for seed in SEEDS}


def test_rows_are_appended_one_by_one_and_none_twice(tmp_path, monkeypatch, capsys):
    """Post-hoc rows cut down the full fine-tune, and are left out by name where it is gone."""
    later = [Plan("rte", "posthoc-grid", "", 1.0), Plan("rte", IN_BUDGETS, "40 %")]
    few = [Plan("rte", "posthoc-top-k", "", 1.0), Plan("rte", "full"), Plan("rte", "head-only")]
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
    code, told = run(*few, *later)
    assert code == 0, told
    with rows.open(newline="") as file:
        found = list(csv.DictReader(file))
    assert len(found) == 5
    sizes = {one["method"]: int(one["bytes"]) for one in found}
    assert sizes.keys() == {"full", "head-only", *POSTHOC}
    assert sizes["posthoc-grid"] <= sizes["posthoc-top-k"] < sizes["full"]
    (budget,) = (one for one in found if one["method"] == IN_BUDGETS)
    assert (budget["variant"], budget["density"]) == ("40 %", "0")
    assert float(budget["share_pct"]) <= 40
    assert 0 < int(budget["bytes_without_head"]) < sizes[IN_BUDGETS]
    (kept,) = keep.iterdir()
    diffpack.apply(model, kept, tmp_path / "tuned")
    command = [sys.executable, "-m", "diffpack_cli", "extract", "--base", model, "--tuned", tmp_path / "tuned"]
    command += ["--budget", "40%", "--no-files", "-o", tmp_path / "cut.dpk"]
    subprocess.run([str(part) for part in command], check=True)
    assert (tmp_path / "cut.dpk").stat().st_size == sizes[IN_BUDGETS]
    kept.unlink()
    code, told = run(*few, *later, Plan("rte", IN_BUDGETS, "20 %"))
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
