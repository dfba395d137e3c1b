"""Measure what is not measured yet, and write the tables and the plot again.

    make bench-size
    make bench-size AGAIN=diffpack        what begins so is measured again; a pair or a tool, several with commas

Prints a table a pair. Exits 1 if diffpack's smallest diff is not smaller than that of every exact peer on every
pair, or misses a bound.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from benchmarks.machine import processor
from benchmarks.page import placed
from benchmarks.size import report, results
from benchmarks.size.catalogue import PAIRS, Catalogue
from benchmarks.size.contenders import CONTENDERS, ROOT, versions
from benchmarks.size.entropy import Facts, facts
from benchmarks.size.measure import Setting, measure
from benchmarks.size.results import BOUND, Row

TOOLS = (BOUND, *(contender.name for contender in CONTENDERS))


def machine() -> str:
    """Give the processor's model and the number of cores."""
    return f"{processor()}, {os.cpu_count()} cores"


def bound_row(pair: str, known: Facts) -> Row:
    return Row(pair, BOUND, "", known.bound, known.tensor_bytes, known.words, known.changed, 0, 0, "-", "", machine())


def todo(options: argparse.Namespace, done: dict[tuple[str, str], Row]) -> list[tuple[str, str]]:
    """List the pairs and tools to measure: the bound of each pair first, then tool by tool, the slow ones last."""
    again = tuple(filter(None, options.again.split(",")))
    tools = (BOUND, *options.tools) if options.tools else ("",)
    everything = [(pair, tool) for tool in TOOLS if tool.startswith(tools) for pair in options.pairs]
    return [key for key in everything if key not in done or (again and any(part.startswith(again) for part in key))]


def run(options: argparse.Namespace, catalogue: Catalogue) -> dict[tuple[str, str], Row]:
    """Measure, and keep each row at once."""
    done = results.read(options.csv)
    setting = Setting(options.peers, options.limit, versions(options.peers), machine())
    by_name = {contender.name: contender for contender in CONTENDERS}
    for name, tool in todo(options, done):
        pair = catalogue.files(name)
        if tool == BOUND:
            row = bound_row(name, facts(pair))
        else:
            bound = done[name, BOUND]  # of every pair it comes first
            known = Facts(bound.tensor_bytes, bound.words, bound.changed, bound.size)
            row = measure(by_name[tool], pair, known, setting)
        done[name, tool] = row
        results.append(options.csv, row)
        print(f"{name:<15} {'  '.join(report.cells(row))}", file=sys.stderr, flush=True)
    return done


def absolute(text: str) -> Path:
    """Give a path that means the same to the processes, and keep links: an environment's python is one."""
    return Path(text).absolute()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=absolute, required=True, help="where the MiniLM packages are installed")
    parser.add_argument("--rxnfp", type=absolute, required=True, help="where rxnfp is installed")
    parser.add_argument("--work", type=absolute, required=True, help="folder for the pairs that are made")
    parser.add_argument("--peers", type=absolute, required=True, help="the python of the peers' environment")
    parser.add_argument("--csv", type=Path, default=ROOT / "benchmarks" / "results" / "size.csv")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "size.md")
    parser.add_argument("--plot", type=Path, default=ROOT / "docs" / "size.svg")
    parser.add_argument("--again", default="", help="measure tools or pairs that begin so again")
    parser.add_argument("--tools", nargs="*", default=[], help="only tools that begin so")
    parser.add_argument("--pairs", nargs="*", default=[pair.name for pair in PAIRS], help="only these pairs")
    parser.add_argument("--limit", type=float, default=300, help="seconds a process may take")
    options = parser.parse_args()
    done = run(options, Catalogue(options.models, options.rxnfp, options.work))
    finish(options, done)


def finish(options: argparse.Namespace, done: dict[tuple[str, str], Row]) -> None:
    """Write everything that follows from the rows, and judge."""
    from benchmarks.size import plot  # here, because nothing else needs matplotlib

    order = [(pair.name, tool) for pair in PAIRS for tool in TOOLS]
    rows = [done[key] for key in order if key in done]
    results.rewrite(options.csv, rows)
    options.page.write_text(placed(options.page.read_text(), report.BEGIN, report.END, report.sections(rows)))
    plot.draw(rows, options.plot)
    lines, good = report.verdict(rows)
    print(report.terminal(rows))
    print("\n" + "\n".join(lines))
    missing = len(order) - len(rows)
    if missing:
        print(f"{missing} rows are not measured yet")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
