"""What hostile files cost: whole processes that open, count, inspect and verify them, with seconds and memory.

    make bench-reliability

The files are those of tests/tools/costly.py: lists of a manifest as long as the limits of the format allow, chunks that
decode to as much as they may, each of a megabyte at most, with digests that fit. A page named gets the table. Exits 1
if one takes too much, or ends in another error than the library's own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import processor
from benchmarks.page import placed
from benchmarks.speed.report import Claim, verdict
from tests.tools import craft
from tests.tools.costly import FILES, OLD

BASE = "--base"
VERBS = (("inspect",), ("stats",), ("verify",), ("verify", BASE))
"""What is run; where the base is asked for, it is the one the files say they are made from."""
MOST_SECONDS, MOST_MEGABYTES = 2.0, 256.0
BUG = "a bug in diffpack"
"""How the command line begins to tell an error that nobody planned."""
BEGIN, END = "<!-- cost: begin -->", "<!-- cost: end -->"
_LONGEST = 120.0
_RUN = """
import re, sys
from pathlib import Path
from diffpack_cli.main import cli
try:
    cli.main(sys.argv[1:])
finally:
    print(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1], file=sys.stderr)
"""
"""Runs the command line and says its own peak: what the system tells of a child has its parent's before it started."""


@dataclass(frozen=True)
class Cost:
    """What a verb took of a file: wall seconds, the largest resident memory in megabytes.

    `foreign` says whether it ended otherwise than by an error of the library's own, or well.
    """

    name: str
    nbytes: int
    verb: str
    seconds: float
    megabytes: float
    foreign: bool


def run(name: str, path: Path, verb: tuple[str, ...], base: Path) -> Cost:
    """Run one verb on a file."""
    start = time.perf_counter()
    given = [str(base)] if BASE in verb else []
    command = [sys.executable, "-c", _RUN, *verb, *given, str(path), "-q"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_LONGEST, check=False)
    seconds = time.perf_counter() - start
    megabytes = int(done.stderr.split()[-1]) * 1024 / 1e6
    foreign = BUG in done.stderr or done.returncode < 0
    return Cost(name, path.stat().st_size, " ".join(verb), seconds, megabytes, foreign)


def costs(folder: Path) -> Iterator[Cost]:
    """Run every verb on every file."""
    path, base = folder / "costly.dpk", folder / "base.safetensors"
    base.write_bytes(craft.safetensors(OLD))
    for name, make in FILES.items():
        path.write_bytes(make())
        for verb in VERBS:
            yield run(name, path, verb, base)


def table(found: list[Cost]) -> str:
    """Of each file the verb that took longest, and the one that took most memory."""
    lines = ["| file | bytes | longest, s | most memory, MB |", "|---|--:|--:|--:|"]
    for name in dict.fromkeys(cost.name for cost in found):
        own = [cost for cost in found if cost.name == name]
        slow, large = max(own, key=lambda cost: cost.seconds), max(own, key=lambda cost: cost.megabytes)
        lines.append(
            f"| {name} | {own[0].nbytes:,} | {slow.seconds:.2f} ({slow.verb}) | {large.megabytes:.0f} ({large.verb}) |"
        )
    return "\n".join(lines)


def claims(found: list[Cost]) -> list[Claim]:
    """What is asked."""
    return [
        Claim("the longest of all, seconds", max(cost.seconds for cost in found), MOST_SECONDS),
        Claim("the most memory of all, MB", max(cost.megabytes for cost in found), MOST_MEGABYTES),
        Claim("other errors than the library's own", sum(cost.foreign for cost in found), 0),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", type=Path, help="page that gets the table")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = list(costs(Path(folder)))
    asked = claims(found)
    print(table(found), *asked, sep="\n")
    if options.page is not None:
        text = f"{len(found)} runs.\n\n{verdict(asked)}\n\n{table(found)}\n\nOn {processor()}."
        options.page.write_text(placed(options.page.read_text(), BEGIN, END, text))
    sys.exit(not all(claim.holds for claim in asked))


if __name__ == "__main__":
    main()
