"""The trainer's table: methods, tasks, densities and seeds; score, time, memory and bytes on disk of each.

    make bench-train

Goes on where it stopped: a row that is in the CSV is not measured again, each new one is appended at once. Rows come in
order of what they tell for their time. Every trained row is one `diffpack train` process; its score is that of the
stored file on the base. Post-hoc rows take the largest changes of a full fine-tune instead of training few entries.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

EPOCHS, BATCH, LENGTH, PRECISION, DROPOUT = 3, 32, 128, "bf16", 0.0
"""The same for every row: what makes many rows possible on a processor, no method's own setting."""
SHORTER = {"bbc_news": 64}
"""Tokens of a text where they are fewer: a news story tells its topic early."""
TASKS = ("corporate_messaging", "sms_spam", "bbc_news", "sst2", "rte")
SMALL_TASKS = ("corporate_messaging", "sms_spam", "bbc_news", "rte")
DENSITIES = (0.001, 0.005, 0.01)
MIDDLE = DENSITIES[1]
POSTHOC = ("posthoc-top-k", "posthoc-budget")
RATES: dict[str, float] = {
    "sparse": 3e-3, "lt-sft": 3e-3, "spiel": 3e-3, "bitfit": 1e-2, "top-layers": 5e-4, "diff-pruning": 3e-4,
    "diff-pruning-structured": 3e-4, "non-adaptive": 2.5e-3, "full": 1e-4, "last-layer": 1e-3, "head-only": 1e-2,
    "adapters": 1e-3, "lora": 5e-3, "magnitude-pruning": 1e-4, "movement-pruning": 1e-4,
}  # fmt: skip
"""The same for all tasks, densities and seeds, from a few runs on corporate_messaging (docs/train.md). For diff
pruning it is the diff's; its last stage has the non-adaptive variant's, which is the same stage."""
PENALTY = 1.25e-7
"""lambda of BERT-large: 42 / entries, the default, closes nearly all gates here within the longer tasks' steps."""
HEAD_FIRST = "head first"
"""The variant of full fine-tuning that, like `sparse`, trains the head alone for an epoch before."""


@dataclass(frozen=True)
class Plan:
    """One row to measure. `variant` is a selection or a size; `density` 0 where the method has none."""

    task: str
    method: str
    variant: str = ""
    density: float = 0.0
    seed: int = 0

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        return (self.task, self.method, self.variant, f"{self.density:g}", str(self.seed))

    @property
    def needs(self) -> Plan:
        """The full fine-tune that a post-hoc row is cut from."""
        return Plan(self.task, "full", seed=self.seed)


@dataclass(frozen=True)
class Row:
    """One measured row. Bytes are of the stored file; shares are of the base's tensors; memory above the model."""

    task: str
    method: str
    variant: str
    density: str
    seed: int
    accuracy: float
    f1: float
    mcc: float
    cpu_seconds: float
    peak_memory_mb: float | str
    trained: int
    bytes: int
    bytes_without_head: int
    share_pct: float
    share_without_head_pct: float
    epochs: int
    batch: int
    lr: float
    max_length: int
    precision: str
    dropout: float
    machine: str


def machine() -> str:
    """Name what it was measured on. Times are the processor's, since the machine may have other work too."""
    name = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            name = line.split(":", 1)[1].strip()
            break
    return f"{name}, 1 thread of {os.cpu_count()}, CPU"


def compared(task: str, seed: int, densities: tuple[float, ...]) -> Iterator[Plan]:
    """Give the rows that the main comparison needs, of one task and seed."""
    yield Plan(task, "full", seed=seed)
    yield Plan(task, "sparse", "fisher", MIDDLE, seed)
    yield Plan(task, "last-layer", seed=seed)
    yield Plan(task, "adapters", "64", seed=seed)
    for kind in POSTHOC:
        yield from (Plan(task, kind, "", density, seed) for density in densities)
    yield Plan(task, "non-adaptive", "", MIDDLE, seed)
    yield Plan(task, "diff-pruning-structured", "", MIDDLE, seed)


def others(task: str) -> Iterator[Plan]:
    """Give every other method of one task, at the middle density; the sparse ones at all three."""
    yield Plan(task, "lt-sft", "", MIDDLE)
    yield Plan(task, "lora", "8")
    yield Plan(task, "bitfit")
    yield Plan(task, "head-only")
    yield Plan(task, "diff-pruning", "", MIDDLE)
    yield Plan(task, "spiel", "", MIDDLE)
    yield from (Plan(task, "sparse", selection, MIDDLE) for selection in ("gradient", "random", "smallest", "largest"))
    yield from (Plan(task, "sparse", "fisher", density) for density in (DENSITIES[0], DENSITIES[2]))
    yield Plan(task, "adapters", "8")
    yield Plan(task, "top-layers", "2")
    yield Plan(task, "full", HEAD_FIRST)
    yield Plan(task, "magnitude-pruning", "", 0.5)
    yield Plan(task, "movement-pruning", "", 0.5)


def plans() -> Iterator[Plan]:
    """Give all rows, the most telling for their time first."""
    for task in TASKS:
        yield from compared(task, 0, DENSITIES)
    for seed in (1, 2):
        for task in SMALL_TASKS[:3]:
            yield from compared(task, seed, (MIDDLE,))
    for task in SMALL_TASKS[:3]:
        yield from others(task)
    for seed in (1, 2):
        yield from compared(SMALL_TASKS[3], seed, (MIDDLE,))
    for density in (DENSITIES[0], DENSITIES[2]):
        for task in SMALL_TASKS[:3]:
            for method in ("lt-sft", "diff-pruning-structured", "diff-pruning", "non-adaptive", "spiel"):
                yield Plan(task, method, "", density)
    for task in TASKS[3:]:
        yield from others(task)
    for seed in (1, 2):
        for task in SMALL_TASKS[:3]:
            yield from (Plan(task, method, size, seed=seed) for method, size in (("bitfit", ""), ("lora", "8")))
            yield Plan(task, "lt-sft", "", MIDDLE, seed)


@dataclass(frozen=True)
class Bench:
    """Where everything is."""

    model: Path
    data: Path
    news: Path
    keep: Path
    csv: Path

    def files(self, task: str) -> tuple[Path, Path]:
        folder = self.news if task == "bbc_news" else self.data / task
        return folder / "train.tsv", folder / "dev.tsv"

    def output(self, plan: Plan) -> Path:
        return self.keep / f"{'_'.join(part or '-' for part in plan.key)}.dpk"

    def measured(self) -> set[tuple[str, ...]]:
        if not self.csv.exists():
            return set()
        with self.csv.open(newline="") as file:
            return {
                (row["task"], row["method"], row["variant"], row["density"], row["seed"])
                for row in csv.DictReader(file)
            }

    def append(self, row: Row) -> None:
        fresh = not self.csv.exists()
        self.csv.parent.mkdir(parents=True, exist_ok=True)
        with self.csv.open("a", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            if fresh:
                writer.writerow([field.name for field in fields(Row)])
            writer.writerow(asdict(row).values())


def run(command: list[Any]) -> dict[str, Any]:
    """Run a command that prints JSON, in a process of its own. Raises `RuntimeError` with what it said."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def trained(bench: Bench, plan: Plan) -> dict[str, Any]:
    """Train one row; resumes what was interrupted."""
    texts, dev = bench.files(plan.task)
    output = bench.output(plan)
    command = [
        sys.executable, "-m", "diffpack_cli", "train", "--model", bench.model, "--train", texts, "--dev", dev,
        "-o", output, "--method", plan.method, "--epochs", EPOCHS, "--batch-size", BATCH, "--lr", RATES[plan.method],
        "--max-length", SHORTER.get(plan.task, LENGTH), "--seed", plan.seed, "--precision", PRECISION,
        "--dropout", DROPOUT, "--threads", 1, "--json", "--force", "--resume",
    ]  # fmt: skip
    if plan.method.startswith("diff-pruning"):
        command += ["--penalty", PENALTY, "--fixed-lr", RATES["non-adaptive"]]
    if plan.density:
        command += ["--density", plan.density]
    if plan.method == "sparse":
        command += ["--selection", plan.variant]
    elif plan.variant == HEAD_FIRST:
        command += ["--head-epochs", 1]
    elif plan.variant:
        command += ["--layers" if plan.method == "top-layers" else "--size", plan.variant]
    found = run(command)
    if plan.method != "full" or plan.variant:  # kept for the post-hoc rows
        output.unlink()
    return found


def post_hoc(bench: Bench, plan: Plan) -> dict[str, Any]:
    """Cut down the full fine-tune of the same task and seed."""
    command = [
        sys.executable, Path(__file__).with_name("train_posthoc.py"), "--model", bench.model,
        "--full", bench.output(plan.needs), "--dev", bench.files(plan.task)[1], "--density", plan.density,
    ]  # fmt: skip
    return run([*command, "--budget"] if plan.method == "posthoc-budget" else command)


def measure(bench: Bench, plan: Plan) -> Row:
    """Measure one row."""
    cut = plan.method in POSTHOC
    found = post_hoc(bench, plan) if cut else trained(bench, plan)
    memory = found.get("peak_memory")
    return Row(
        *plan.key[:4], plan.seed, *(round(found["scores"][name], 4) for name in ("accuracy", "f1", "mcc")),
        round(found["cpu_seconds"], 1), "" if memory is None else round(memory / 1e6, 1), found.get("trained", 0),
        found["bytes"], found["bytes_without_head"],
        *(round(100 * found[name] / found["base_bytes"], 4) for name in ("bytes", "bytes_without_head")),
        EPOCHS, BATCH, RATES["full" if cut else plan.method], SHORTER.get(plan.task, LENGTH), PRECISION,
        DROPOUT, machine(),
    )  # fmt: skip


class Queue:
    """The rows still to measure, in order; several workers take from it."""

    def __init__(self, bench: Bench, wanted: list[Plan], end: float) -> None:
        self._bench, self._end, self._lock = bench, end, threading.Lock()
        done = bench.measured()
        self._left = [plan for plan in wanted if plan.key not in done]
        self._total, self._done = len(self._left), 0
        self.failed = 0

    def _next(self) -> Plan | None:
        """Take the first row that can be measured now: what it is made from is there."""
        with self._lock:
            if time.monotonic() > self._end:
                return None
            for plan in self._left:
                if plan.method not in POSTHOC or self._bench.output(plan.needs).exists():
                    self._left.remove(plan)
                    return plan
            return None

    def waiting(self) -> list[Plan]:
        """Give the post-hoc rows whose full fine-tune is measured but not kept any more."""
        done = self._bench.measured()
        cut = [plan for plan in self._left if plan.method in POSTHOC and plan.needs.key in done]
        return [plan for plan in cut if not self._bench.output(plan.needs).exists()]

    def work(self) -> None:
        """Measure rows until none is left, or time is out."""
        while (plan := self._next()) is not None:
            try:
                row = measure(self._bench, plan)
            except (RuntimeError, OSError) as error:
                with self._lock:
                    self.failed += 1
                print(f"{plan}: FAILED: {error}", flush=True)
                continue
            with self._lock:
                self._bench.append(row)
                self._done += 1
            print(
                f"{self._done}/{self._total} {row.task} {row.method} {row.variant} {row.density} seed {row.seed}: "
                f"accuracy {row.accuracy}, {row.bytes:,} bytes ({row.share_without_head_pct} % without head), "
                f"{row.cpu_seconds} s",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="the base's model folder")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("DIFFPACK_DATA", "data")))
    parser.add_argument("--news", type=Path, required=True, help="BBC news as tsv (benchmarks/train_data.py)")
    parser.add_argument("--keep", type=Path, required=True, help="a folder for full fine-tunes and checkpoints")
    parser.add_argument("--csv", type=Path, required=True)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--methods", nargs="+", choices=[*RATES, *POSTHOC], default=[*RATES, *POSTHOC])
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="rows at a time, a thread each")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no row after that long")
    options = parser.parse_args()
    bench = Bench(options.model, options.data, options.news, options.keep, options.csv)
    bench.keep.mkdir(parents=True, exist_ok=True)
    wanted = [plan for plan in plans() if plan.task in options.tasks and plan.method in options.methods]
    for task in options.tasks:
        if not bench.files(task)[0].exists():
            print(f"no data for {task}: left out", flush=True)
            wanted = [plan for plan in wanted if plan.task != task]
    queue = Queue(bench, wanted, time.monotonic() + 60 * options.minutes)
    workers = [threading.Thread(target=queue.work) for _ in range(options.jobs)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for plan in queue.waiting():
        print(f"{plan}: left out: {bench.output(plan.needs)} is not there; delete the full row to train it again")
    sys.exit(1 if queue.failed or queue.waiting() else 0)


if __name__ == "__main__":
    main()
