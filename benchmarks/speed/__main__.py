"""Measure what is not measured yet, and write the tables and the plot again.

    make bench-speed
    make bench-speed AGAIN=RL-like     kinds that begin so are measured again; several with commas, `all` for everything

Prints what is asked of the times; exits 1 if something is missed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.machine import processor
from benchmarks.page import placed
from benchmarks.size.contenders import CONTENDERS
from benchmarks.speed import fine_tunes, plot, report, results
from benchmarks.speed.made import JOINED, KINDS, SIZES, SMALL, pair_of
from benchmarks.speed.measure import measure, measure_peer, weights_in
from benchmarks.speed.report import Claim
from benchmarks.speed.results import EXTRACT, Row

ROOT = Path(__file__).parent.parent.parent
SMALL_SIZE = 147
PEER_SIZES = (90, 1000)
BEGIN, END = "<!-- speed: begin -->", "<!-- speed: end -->"
ASKED_BEGIN, ASKED_END = "<!-- asked: begin -->", "<!-- asked: end -->"
_STARTS = {
    "diffpack --help": (["-m", "diffpack_cli", "--help"], 0.1),
    "import diffpack": (["-c", "import diffpack"], 0.25),
}
_START_ROUNDS = 15


def starts() -> list[Claim]:
    """How long it takes until the program says what it can do, less what python takes to start."""
    least = dict.fromkeys(("", *_STARTS), float("inf"))
    for _ in range(_START_ROUNDS):
        for what, arguments in [("", ["-c", ""]), *((what, own) for what, (own, _) in _STARTS.items())]:
            start = time.perf_counter()
            subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
            least[what] = min(least[what], time.perf_counter() - start)
    return [
        Claim(f"{what}, s, with python's own {least['']:.3f}", least[what], most) for what, (_, most) in _STARTS.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the pairs that are made: 26 GB")
    parser.add_argument("--peers", type=Path, help="the python of the peers' environment")
    parser.add_argument("--csv", type=Path, default=ROOT / "benchmarks" / "results" / "speed.csv")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "speed.md")
    parser.add_argument("--plot", type=Path, default=ROOT / "docs" / "speed.svg")
    parser.add_argument("--again", default="", help="kinds that begin so are measured again")
    parser.add_argument("--most", type=int, default=max(SIZES), help="megabytes of the largest pair")
    options = parser.parse_args()
    rows = results.read(options.csv)
    again = tuple(part for part in options.again.split(",") if part)
    todo = [(kind.name, size) for size in SIZES for kind in KINDS] + [(name, SMALL_SIZE) for name in (SMALL, JOINED)]
    machine = f"{processor()}, {os.cpu_count()} cores"
    for name, size in todo:
        known = (name, size, "plain", EXTRACT) in rows
        if size > options.most or (known and "all" not in again and not (again and name.startswith(again))):
            continue
        for row in measured(name, size, options, machine):
            rows[row.key] = row
            print(
                f"{name:<15} {size:>5} MB  {row.tool:<26} {row.verb:<8} {row.seconds:8.2f} s {row.ratio:6.2f} x",
                flush=True,
            )
        results.write(options.csv, rows.values())
    if (fine_tunes.KIND, fine_tunes.MEGABYTES, "diffpack one run", EXTRACT) not in rows or "all" in again:
        row = fine_tunes.measure(options.work, machine)
        rows[row.key] = row
        results.write(options.csv, rows.values())
    found = [*report.claims(rows), *starts()]
    page = options.page.read_text()
    page = placed(page, BEGIN, END, report.tables(rows))
    page = placed(
        page,
        ASKED_BEGIN,
        ASKED_END,
        f"{report.verdict(found)}\n\nOn {', '.join(sorted({row.machine for row in rows.values()}))}.",
    )
    options.page.write_text(page)
    plot.draw(rows, options.plot)
    print(*found, sep="\n")
    sys.exit(not all(claim.holds for claim in found))


def measured(name: str, size: int, options: argparse.Namespace, machine: str) -> list[Row]:
    """All rows of a pair, whose files are gone afterwards."""
    pair = pair_of(name, size, options.work)
    try:
        for path in pair:
            for file in weights_in(path):  # into the page cache
                with open(file, "rb") as source:
                    while source.read(1 << 24):
                        pass
        with tempfile.TemporaryDirectory(dir=options.work) as folder:
            rows = measure(name, size, pair, Path(folder), machine)
        if options.peers is not None and size in PEER_SIZES and pair[0].is_file():
            plain = {row.verb: row for row in rows if row.tool == "plain"}
            for peer in CONTENDERS:
                if peer.module is not None:
                    with tempfile.TemporaryDirectory(dir=options.work) as folder:
                        rows += measure_peer(peer, options.peers, pair, Path(folder), plain)
    finally:
        shutil.rmtree(pair[0].parent)
    return rows


if __name__ == "__main__":
    main()
