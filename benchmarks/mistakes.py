"""How long mistakes on the command line take to be told.

    make bench-mistakes

Each line in a process of its own, the start of Python included, the best of several. Prints seconds of the processor
and of the clock; exits 1 if one takes the processor longer than the bound, or loads a heavy package.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.tools.mistakes import MISTAKES, MOST_SECONDS, ROUNDS, fill, told


def main() -> None:
    missed = []
    with tempfile.TemporaryDirectory() as folder:
        fill(Path(folder))
        for what in MISTAKES:
            runs = [told(what, Path(folder)) for _ in range(ROUNDS)]
            processor, clock = min(run.processor for run in runs), min(run.clock for run in runs)
            print(f"{what:52} {processor:6.2f} s {clock:6.2f} s", flush=True)
            if processor >= MOST_SECONDS or runs[0].loaded:
                missed.append(what)
    if missed:
        sys.exit(f"over {MOST_SECONDS} s, or loads what it need not: {', '.join(missed)}")


if __name__ == "__main__":
    main()
