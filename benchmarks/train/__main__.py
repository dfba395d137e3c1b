"""The trainer's table: methods, tasks, densities and seeds; score, time, memory and bytes on disk of each.

    make bench-train

Goes on where it stopped: a row that is in the CSV is not measured again, each new one is appended at once. Rows come in
order of what they tell for their time. Every trained row is one `diffpack train` process; its score is that of the
stored file on the base. Post-hoc rows take the largest changes of a full fine-tune instead of training few entries.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from benchmarks.train.measure import Places
from benchmarks.train.plans import POSTHOC, RATES, TASKS, plans
from benchmarks.train.queue import Queue


def absolute(text: str) -> Path:
    """Give a path that means the same to the processes."""
    return Path(text).absolute()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=absolute, required=True, help="the base's model folder")
    parser.add_argument("--data", type=absolute, default=absolute(os.environ.get("DIFFPACK_DATA", "data")))
    parser.add_argument("--news", type=absolute, required=True, help="BBC news as tsv (benchmarks.train.news)")
    parser.add_argument("--keep", type=absolute, required=True, help="a folder for full fine-tunes and checkpoints")
    parser.add_argument("--csv", type=Path, required=True)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--methods", nargs="+", choices=[*RATES, *POSTHOC], default=[*RATES, *POSTHOC])
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="rows at a time, a thread each")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no row after that long")
    options = parser.parse_args()
    places = Places(options.model, options.data, options.news, options.keep)
    places.keep.mkdir(parents=True, exist_ok=True)
    tasks = [task for task in options.tasks if places.files(task)[0].exists()]
    for task in options.tasks:
        if task not in tasks:
            print(f"no data for {task}: left out", flush=True)
    wanted = [plan for plan in plans() if plan.task in tasks and plan.method in options.methods]
    queue = Queue(places, options.csv, wanted, time.monotonic() + 60 * options.minutes)
    queue.work(options.jobs)
    waiting = queue.waiting()
    for plan in waiting:
        print(f"{plan}: left out: {places.output(plan.needs)} is not there; delete the full row to train it again")
    sys.exit(1 if queue.failed or waiting else 0)


if __name__ == "__main__":
    main()
