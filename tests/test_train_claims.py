"""The trainer's claims are counted from the rows as they are, also where they fail."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
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
    command = [sys.executable, BENCHMARKS / "train_claims.py", source, *page]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
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
    assert "diff-pruning-structured 0.5 % less full" in lines
    assert lines["diff-pruning-structured 0.5 %: the largest file without its head, % of the base's bytes"][3] == "MISS"


def test_the_page_takes_the_lines_between_its_marks(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- claims: begin -->\nold\n<!-- claims: end -->\nafter\n")
    count(tmp_path, [row("a", FULL, 0, 0.9), row("a", SPARSE, 0, 0.9)], page)
    text = page.read_text()
    assert text.startswith("before\n<!-- claims: begin -->\n\n| accuracy, points |")
    assert text.endswith("|\n\n<!-- claims: end -->\nafter\n")
    assert "old" not in text
