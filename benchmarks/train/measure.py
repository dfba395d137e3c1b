"""One row: a `diffpack train` process, or a full fine-tune cut down after training."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import processor
from benchmarks.train.plans import (
    AS_PUBLISHED,
    BATCH,
    DROPOUT,
    EPOCHS,
    HEAD_FIRST,
    IN_BUDGETS,
    LENGTH,
    PENALTY,
    POSTHOC,
    PRECISION,
    PUBLISHED_RATE,
    RATES,
    SHORTER,
    Plan,
)
from benchmarks.train.rows import Row

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Places:
    """Where the base, the tasks and the full fine-tunes are."""

    model: Path
    data: Path
    news: Path
    keep: Path

    def files(self, task: str) -> tuple[Path, Path]:
        """Give a task's texts to train on and to score."""
        folder = self.news if task == "bbc_news" else self.data / task
        return folder / "train.tsv", folder / "dev.tsv"

    def output(self, plan: Plan) -> Path:
        """Give the file a row is trained into."""
        return self.keep / f"{'_'.join(part or '-' for part in plan.key)}.dpk"


def run(command: list[Any]) -> dict[str, Any]:
    """Run a command that prints JSON, in a process of its own. Raises `RuntimeError` with what it said."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([str(part) for part in command], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def last_rate(plan: Plan) -> float:
    """Give the learning rate of diff pruning's last stage."""
    return PUBLISHED_RATE if plan.variant == AS_PUBLISHED else RATES["non-adaptive"]


def rate(plan: Plan) -> float:
    """Give a row's learning rate; of the non-adaptive variant it is the last stage's."""
    if plan.method == "non-adaptive":
        return last_rate(plan)
    return RATES[plan.needs.method if plan.method in POSTHOC else plan.method]


def trained(places: Places, plan: Plan) -> dict[str, Any]:
    """Train one row; resumes what was interrupted."""
    texts, dev = places.files(plan.task)
    output = places.output(plan)
    command = [
        sys.executable, "-m", "diffpack_cli", "train", "--model", places.model, "--train", texts, "--dev", dev,
        "-o", output, "--method", plan.method, "--epochs", EPOCHS, "--batch-size", BATCH, "--lr", rate(plan),
        "--max-length", SHORTER.get(plan.task, LENGTH), "--seed", plan.seed, "--precision", PRECISION,
        "--dropout", DROPOUT, "--threads", 1, "--json", "--force", "--resume",
    ]  # fmt: skip
    if plan.method.startswith("diff-pruning"):
        command += ["--penalty", PENALTY, "--fixed-lr", last_rate(plan)]
    if plan.density:
        command += ["--density", plan.density]
    if plan.method == "sparse":
        command += ["--selection", plan.variant]
    elif plan.variant == HEAD_FIRST:
        command += ["--head-epochs", 1]
    elif plan.variant and plan.variant != AS_PUBLISHED:
        command += ["--layers" if plan.method == "top-layers" else "--size", plan.variant]
    found = run(command)
    if plan.method != "full" or plan.variant:  # kept for the post-hoc rows
        output.unlink()
    return found


def post_hoc(places: Places, plan: Plan) -> dict[str, Any]:
    """Cut down the full fine-tune of the same task and seed."""
    command = [
        sys.executable, "-m", "benchmarks.train.posthoc", "--model", places.model,
        "--full", places.output(plan.needs), "--dev", places.files(plan.task)[1],
    ]  # fmt: skip
    if plan.method == IN_BUDGETS:
        return run([*command, "--budget", plan.variant])
    command += ["--density", plan.density]
    return run([*command, "--grid"] if plan.method == "posthoc-grid" else command)


def measure(places: Places, plan: Plan) -> Row:
    """Measure one row. Raises `RuntimeError` with what a process said that failed."""
    cut = plan.method in POSTHOC
    found = post_hoc(places, plan) if cut else trained(places, plan)
    memory, scores = found.get("peak_memory"), found["scores"]
    task, method, variant, density, _ = plan.key
    return Row(
        task=task, method=method, variant=variant, density=density, seed=plan.seed,
        accuracy=round(scores["accuracy"], 4), f1=round(scores["f1"], 4), mcc=round(scores["mcc"], 4),
        cpu_seconds=round(found["cpu_seconds"], 1), peak_memory_mb="" if memory is None else round(memory / 1e6, 1),
        trained=found.get("trained", 0), bytes=found["bytes"], bytes_without_head=found["bytes_without_head"],
        share_pct=round(100 * found["bytes"] / found["base_bytes"], 4),
        share_without_head_pct=round(100 * found["bytes_without_head"] / found["base_bytes"], 4),
        epochs=EPOCHS, batch=BATCH, lr=rate(plan), max_length=SHORTER.get(plan.task, LENGTH), precision=PRECISION,
        dropout=DROPOUT, machine=f"{processor()}, 1 thread of {os.cpu_count()}, CPU",
    )  # fmt: skip
