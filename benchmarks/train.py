"""The trainer's table: methods, tasks, densities and seeds; score, time, memory and bytes on disk of each.

    make bench-train

Goes on where it stopped: a row that is in the CSV is not measured again, each new one is appended at once. Rows come in
order of what they tell for their time. Every trained row is one `diffpack train` process; its score is that of the
stored file on the base. Post-hoc rows take the largest changes of a full fine-tune instead of training few entries.
"""

from __future__ import annotations

import argparse
import csv
import inspect
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import diffpack

EPOCHS, BATCH, LENGTH = 3, 32, 128
TASKS = ("corporate_messaging", "rte", "sms_spam", "bbc_news", "sst2")
SMALL_TASKS = TASKS[:3]
DENSITIES = (0.001, 0.005, 0.01)
POSTHOC = ("posthoc-top-k", "posthoc-budget")
RATES: dict[str, float] = {
    "sparse": 3e-3, "lt-sft": 3e-3, "spiel": 3e-3, "bitfit": 1e-2, "top-layers": 5e-4, "diff-pruning": 5e-4,
    "diff-pruning-structured": 5e-4, "non-adaptive": 2.5e-3, "full": 1e-4, "last-layer": 5e-4, "head-only": 1e-2,
    "adapters": 1e-3, "lora": 3e-3, "magnitude-pruning": 1e-4, "movement-pruning": 1e-4,
}  # fmt: skip
"""The same for all tasks, densities and seeds, from a few runs on corporate_messaging (docs/train.md). For diff
pruning it is the diff's; the last stage has five times as much, as published."""
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
    machine: str


def machine() -> str:
    """Name what it was measured on. Times are the processor's, since the machine may have other work too."""
    name = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            name = line.split(":", 1)[1].strip()
            break
    return f"{name}, 1 thread of {os.cpu_count()}, CPU"


def plans() -> Iterator[Plan]:
    """Give all rows, the most telling for their time first."""
    middle = DENSITIES[1]
    for task in TASKS:
        yield Plan(task, "full")
        yield Plan(task, "sparse", "fisher", middle)
        for kind in POSTHOC:
            yield from (Plan(task, kind, "", density) for density in DENSITIES)
        yield Plan(task, "last-layer")
        yield Plan(task, "adapters", "64")
        yield Plan(task, "head-only")
        yield Plan(task, "bitfit")
        yield Plan(task, "lora", "8")
        yield Plan(task, "lt-sft", "", middle)
        yield Plan(task, "non-adaptive", "", middle)
        yield Plan(task, "diff-pruning-structured", "", middle)
        yield Plan(task, "diff-pruning", "", middle)
    for task in TASKS:
        yield Plan(task, "sparse", "fisher", DENSITIES[0])
        yield Plan(task, "sparse", "fisher", DENSITIES[2])
        yield Plan(task, "sparse", "gradient", middle)
        yield Plan(task, "sparse", "random", middle)
        yield Plan(task, "spiel", "", middle)
        yield Plan(task, "adapters", "8")
        yield Plan(task, "top-layers", "2")
        yield Plan(task, "full", HEAD_FIRST)
        yield Plan(task, "magnitude-pruning", "", 0.5)
        yield Plan(task, "movement-pruning", "", 0.5)
    for seed in (1, 2):
        for task in SMALL_TASKS:
            yield Plan(task, "full", seed=seed)
            for kind in POSTHOC:
                yield from (Plan(task, kind, "", density, seed) for density in DENSITIES)
            yield Plan(task, "sparse", "fisher", middle, seed)
            yield Plan(task, "last-layer", seed=seed)
            yield Plan(task, "adapters", "64", seed=seed)
            yield Plan(task, "bitfit", seed=seed)
            yield Plan(task, "lt-sft", "", middle, seed)
            yield Plan(task, "non-adaptive", "", middle, seed)
            yield Plan(task, "diff-pruning-structured", "", middle, seed)
    for density in (DENSITIES[0], DENSITIES[2]):
        for task in SMALL_TASKS:
            for method in ("lt-sft", "diff-pruning-structured", "diff-pruning", "non-adaptive", "spiel"):
                yield Plan(task, method, "", density)
    for task in TASKS:
        yield Plan(task, "sparse", "smallest", middle)
        yield Plan(task, "sparse", "largest", middle)


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


def trained(bench: Bench, plan: Plan) -> Row:
    """Train one row in a process of its own; resumes what was interrupted."""
    texts, dev = bench.files(plan.task)
    output = bench.output(plan)
    rate = RATES[plan.method]
    command = [
        sys.executable, "-m", "diffpack_cli", "train", "--model", bench.model, "--train", texts, "--dev", dev,
        "-o", output, "--method", plan.method, "--epochs", EPOCHS, "--batch-size", BATCH, "--lr", rate,
        "--max-length", LENGTH, "--seed", plan.seed, "--threads", 1, "--json", "--force", "--resume",
    ]  # fmt: skip
    if plan.density:
        command += ["--density", plan.density]
    if plan.method == "sparse":
        command += ["--selection", plan.variant]
    elif plan.variant == HEAD_FIRST:
        command += ["--head-epochs", 1]
    elif plan.variant:
        command += ["--layers" if plan.method == "top-layers" else "--size", plan.variant]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    found = json.loads(done.stdout)
    if plan.method != "full" or plan.variant:  # kept for the post-hoc rows
        output.unlink()
    memory = "" if found["peak_memory"] is None else round(found["peak_memory"] / 1e6, 1)
    return Row(
        *plan.key[:4], plan.seed, *(round(found["scores"][name], 4) for name in ("accuracy", "f1", "mcc")),
        round(found["cpu_seconds"], 1), memory, found["trained"], found["bytes"], found["bytes_without_head"],
        *(round(100 * found[name] / found["base_bytes"], 4) for name in ("bytes", "bytes_without_head")),
        EPOCHS, BATCH, rate, LENGTH, machine(),
    )  # fmt: skip


def post_hoc(bench: Bench, plan: Plan) -> Row | None:
    """Cut down the full fine-tune of the same task and seed; None where extract has no budgets (yet)."""
    from diffpack.train.data import encode, read_tsv
    from diffpack.train.evaluate import load_task, predict, scores

    full = bench.output(Plan(plan.task, "full", seed=plan.seed))
    start = time.process_time()
    with diffpack.open(full) as diff:
        metadata = diff.metadata
        head = [name for name in diff if diff[name].kind == "new"]
    tuned = bench.keep / "tuned"
    diffpack.apply(bench.model, full, tuned, force=True)
    stored: dict[str, Any] = {"layout": False, "metadata": metadata}
    chosen: dict[str, Any] = {"density": plan.density, "values": "f16"}
    made = diffpack.extract(bench.model, tuned, **chosen, **stored)
    if plan.method == "posthoc-budget":
        if "budget" not in inspect.signature(diffpack.extract).parameters:
            return None
        chosen = {"budget": made.nbytes}
        made = diffpack.extract(bench.model, tuned, **chosen, **stored)
    task = load_task(bench.model, made)
    examples = read_tsv(bench.files(plan.task)[1])
    numbers = [task.labels.index(label) for label in examples.labels]
    rows = encode(examples.texts, examples.pairs, numbers, task.tokenizer, LENGTH)
    found = scores(numbers, predict(task.model, rows, task.tokenizer))
    base = made.manifest.base.bytes
    weights = diffpack.load(bench.model, full)
    whole, headless = (
        diffpack.extract(bench.model, {name: weights[name] for name in weights if name not in without}, **chosen).nbytes
        for without in ((), head)
    )
    headless += made.nbytes - whole  # side files and metadata cost the same
    return Row(
        *plan.key[:4], plan.seed, *(round(found[name], 4) for name in ("accuracy", "f1", "mcc")),
        round(time.process_time() - start, 1), "", 0, made.nbytes, headless,
        *(round(100 * value / base, 4) for value in (made.nbytes, headless)),
        EPOCHS, BATCH, RATES["full"], LENGTH, machine(),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="the base's model folder")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("DIFFPACK_DATA", "data")))
    parser.add_argument("--news", type=Path, required=True, help="BBC news as tsv (benchmarks/train_data.py)")
    parser.add_argument("--keep", type=Path, required=True, help="a folder for full fine-tunes and checkpoints")
    parser.add_argument("--csv", type=Path, required=True)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--methods", nargs="+", choices=[*RATES, *POSTHOC], default=[*RATES, *POSTHOC])
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no row after that long")
    options = parser.parse_args()
    bench = Bench(options.model, options.data, options.news, options.keep, options.csv)
    bench.keep.mkdir(parents=True, exist_ok=True)
    wanted = [plan for plan in plans() if plan.task in options.tasks and plan.method in options.methods]
    end = time.monotonic() + 60 * options.minutes
    failed = 0
    for at, plan in enumerate(wanted, 1):
        if plan.key in bench.measured():
            continue
        if time.monotonic() > end:
            break
        if not bench.files(plan.task)[0].exists():
            print(f"no data for {plan.task}: left out", flush=True)
            continue
        try:
            row = post_hoc(bench, plan) if plan.method in POSTHOC else trained(bench, plan)
        except (RuntimeError, OSError, diffpack.DiffpackError) as error:
            failed += 1
            print(f"{at}/{len(wanted)} {plan}: FAILED: {error}", flush=True)
            continue
        if row is None:
            continue
        bench.append(row)
        print(
            f"{at}/{len(wanted)} {row.task} {row.method} {row.variant} {row.density} seed {row.seed}: accuracy "
            f"{row.accuracy}, {row.bytes:,} bytes ({row.share_without_head_pct} % without head), {row.cpu_seconds} s",
            flush=True,
        )
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
