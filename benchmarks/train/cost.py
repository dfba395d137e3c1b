"""What SparseTuner costs beside full fine-tuning: peak memory above the model, and seconds a step.

    make bench-train-cost

Memory: one process each, a batch of one text of two tokens, so that activations count for nothing; the highest resident
bytes above those of the loaded model, in units of the weights. Time: both in one process, step by step in turn, the
median of each; a batch of 32 texts of 32 tokens. Prints each number beside its bound; exits 1 if one is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from diffpack.train.loop.peak_memory import reset_peak, resident
from diffpack.train.model import body_parameters, load_classifier
from diffpack.train.selections.datafree import at_random
from diffpack.train.selections.gradients import by_gradient
from diffpack.train.tuners.optimise import adamw
from diffpack.train.tuners.sparse import SparseTuner

DENSITY = 0.005
MEMORY_BOUND, TIME_BOUND = 0.6, 1.1
MODES = ("full", "picking", "sparse")
STEPS = 8


def batch(model: torch.nn.Module, rows: int, tokens: int) -> dict[str, torch.Tensor]:
    size: Any = model.config
    ids = torch.randint(0, size.vocab_size, (rows, tokens), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.zeros(rows, dtype=torch.long)}


def memory(folder: Path, mode: str) -> dict[str, float]:
    """Train (or pick) in this process; give the peak above the model in units of the weights."""
    loaded = load_classifier(folder, ("a", "b"), 0)
    model, head = loaded.model, loaded.head
    body = body_parameters(model, head)
    weights = sum(value.numel() * value.element_size() for value in model.parameters())
    count = round(DENSITY * sum(value.numel() for value in body.values()))
    data = batch(model, 1, 2)
    with torch.no_grad():
        model(**data)
    positions = {} if mode == "full" else at_random(body, count, 0)
    resting = reset_peak()
    if mode == "picking":
        by_gradient(model, body, [data] * 3, count)
    else:
        tuner = SparseTuner(model, positions, head) if mode == "sparse" else None
        values = list(model.parameters()) if tuner is None else tuner.parameters()
        optimiser = adamw(values, 1e-5)
        if tuner is not None:
            tuner.attach(optimiser)
        for _ in range(3):
            model(**data).loss.backward()
            optimiser.step()
            optimiser.zero_grad()
    peak = resident(peak=True)
    if resting is None or peak is None:
        sys.exit("this system does not tell the peak of resident memory")
    return {"peak": (peak - resting) / weights}


def seconds(folder: Path) -> dict[str, float]:
    """Time steps of both, in turn."""
    runs = {}
    for mode in ("full", "sparse"):
        loaded = load_classifier(folder, ("a", "b"), 0)
        model, head = loaded.model, loaded.head
        body = body_parameters(model, head)
        if mode == "sparse":
            count = round(DENSITY * sum(value.numel() for value in body.values()))
            tuner = SparseTuner(model, at_random(body, count, 0), head)
            optimiser = tuner.attach(adamw(tuner.parameters(), 1e-5))
        else:
            optimiser = adamw(list(model.parameters()), 1e-5)
        runs[mode] = (model, optimiser, batch(model, 32, 32))
    times: dict[str, list[float]] = {mode: [] for mode in runs}
    for _ in range(STEPS):
        for mode, (model, optimiser, data) in runs.items():
            start = time.perf_counter()
            model(**data).loss.backward()
            optimiser.step()
            optimiser.zero_grad()
            times[mode].append(time.perf_counter() - start)
    return {mode: statistics.median(found[1:]) for mode, found in times.items()}


def in_a_process(folder: Path, what: str) -> dict[str, float]:
    # freed memory goes back to the system at once, so that the peak is that of what lives
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
    command = [sys.executable, "-m", "benchmarks.train.cost", "--model", str(folder), "--measure", what]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--measure", choices=[*MODES, "time"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        torch.set_num_threads(1)
        found = seconds(options.model) if options.measure == "time" else memory(options.model, options.measure)
        print(json.dumps(found))
        return
    peaks = {mode: in_a_process(options.model, mode)["peak"] for mode in MODES}
    print(f"peak memory above the model, full fine-tuning:       {peaks['full']:.2f} x the weights")
    print(f"peak memory above the model, picking by Fisher:      {peaks['picking']:.2f} x the weights (once)")
    held = peaks["sparse"] <= MEMORY_BOUND
    mark = "ok" if held else "MISS"
    print(f"peak memory above the model, SparseTuner at {DENSITY:.1%}:    {peaks['sparse']:.2f} x the weights "
          f"(bound {MEMORY_BOUND}) {mark}")  # fmt: skip
    times = in_a_process(options.model, "time")
    ratio = times["sparse"] / times["full"]
    mark = "ok" if ratio <= TIME_BOUND else "MISS"
    print(f"seconds a step, full / SparseTuner:                  {times['full']:.3f} / {times['sparse']:.3f}, "
          f"{ratio:.2f} x (bound {TIME_BOUND}) {mark}")  # fmt: skip
    sys.exit(0 if held and ratio <= TIME_BOUND else 1)


if __name__ == "__main__":
    main()
