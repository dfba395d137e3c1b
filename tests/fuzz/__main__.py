"""Fuzz the readers for any length.

    make fuzz SECONDS=300 TARGETS='diff torch-pickle'
    python -m tests.fuzz --seconds 60 --results benchmarks/results/fuzz.txt
    python -m tests.fuzz --engine atheris torch-zip        (pip install atheris)

Every target gets its part of the time, in a process of its own: an input that ends it is a finding, as is any error
that is not the library's, a wrong result, over 2 s of processor time, or 256 MB above the start (HDF5's own library may
take more: tests/fuzz/target.py). An input that took too much is tried again alone before it counts. Findings are kept
in --folder, and `python -m tests.fuzz.worker TARGET --alone FILE` tries one again. Exits 1 if there are any.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import random
import subprocess
import sys
from pathlib import Path

from tests.fuzz.target import MOST_BYTES, Target, all_targets
from tests.fuzz.worker import CURRENT, Report

_STUCK = 60.0  # seconds that a worker may go on after its time
_LEAST = 5.0  # seconds of a target: importing takes one


def worker(target: Target, *options: object, limit: float) -> Report:
    """Run a worker. One that ends otherwise than by itself is a report with the finding "ended"."""
    command = [sys.executable, "-m", "tests.fuzz.worker", target.name, *map(str, options)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return Report(target.name, found={"ended": f"does not come to an end: {limit:.0f} s"})
    if done.returncode:
        return Report(target.name, found={"ended": f"exit code {done.returncode}: {done.stderr.strip()[-500:]}"})
    return Report(**json.loads(done.stdout))


def fuzz(target: Target, seconds: float, seed: int, folder: Path) -> Report:
    """Try a target's inputs for so long; give what is found, each confirmed alone."""
    report = worker(target, "--seed", seed, "--seconds", seconds, "--folder", folder, limit=seconds + _STUCK)
    if "ended" in report.found:
        name = f"{target.name}-ended-{seed}"
        os.replace(folder / CURRENT, folder / name)
        report.found = {name: report.found["ended"]}
    confirmed = {}
    for name, what in report.found.items():
        again = worker(target, "--alone", folder / name, limit=_STUCK)
        if again.found or not what.startswith("cost"):
            confirmed[name] = "; ".join(dict.fromkeys([what, *again.found.values()]))
    report.found = confirmed
    return report


def table(reports: list[Report]) -> str:
    """What was tried, and the most that an input took."""
    lines = [f"{'target':22} {'inputs':>8} {'read':>8} {'most s':>7} {'most MB':>8} {'found':>6}"]
    whole = Report(
        "all", sum(report.inputs for report in reports), sum(report.read for report in reports),
        max(report.seconds for report in reports), max(report.megabytes for report in reports),
        {name: what for report in reports for name, what in report.found.items()},
    )  # fmt: skip
    lines += [
        f"{report.target:22} {report.inputs:8,} {report.read:8,} {report.seconds:7.2f} {report.megabytes:8.0f} "
        f"{len(report.found):6}"
        for report in [*reports, whole]
    ]
    return "\n".join(lines)


def chosen(patterns: list[str]) -> list[Target]:
    """The targets whose names fit; all without a pattern."""
    targets = all_targets()
    names = [name for name in targets if any(fnmatch.fnmatch(name, pattern) for pattern in patterns or ["*"])]
    if not names:
        sys.exit(f"no target fits; they are {', '.join(targets)}")
    return [targets[name] for name in names]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", help="names of targets, or patterns of them (default: all)")
    parser.add_argument("--seconds", type=float, default=300, help="for all targets together")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--engine", choices=["random", "atheris"], default="random")
    parser.add_argument("--folder", type=Path, default=Path("fuzz-found"), help="where findings are kept")
    parser.add_argument("--results", type=Path, help="file that gets the table")
    options = parser.parse_args()
    targets = chosen(options.targets)
    options.folder.mkdir(exist_ok=True)
    if options.engine == "atheris":
        from tests.fuzz.coverage_guided import guided

        guided(targets[0], options.seconds, options.folder)
        return
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    reports = []
    for target in targets:
        report = fuzz(target, max(_LEAST, options.seconds / len(targets)), seed, options.folder)
        reports.append(report)
        for name, what in report.found.items():
            print(f"{options.folder / name}: {what}", flush=True)
    (options.folder / CURRENT).unlink(missing_ok=True)
    text = f"seed {seed}, inputs of up to {MOST_BYTES:,} bytes\n\n{table(reports)}\n"
    print(text, end="")
    if options.results is not None:
        options.results.write_text(text)
    sys.exit(any(report.found for report in reports))


if __name__ == "__main__":
    main()
