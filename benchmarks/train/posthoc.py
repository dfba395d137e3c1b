"""Cut a full fine-tune down after training, and score what is left: one row of the trainer's table, as JSON.

    python -m benchmarks.train.posthoc --model DIR --full full.dpk --dev dev.tsv --density 0.005 [--budget]

Takes the largest changes up to the density, as f16; with --budget, `extract --budget` with the bytes these take.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import diffpack
from diffpack.train.evaluate import load_task, scores
from diffpack.train.texts import read_tsv


def measure(model: Path, full: Path, dev: Path, density: float, budget: bool) -> dict[str, Any]:
    start = time.process_time()
    with diffpack.open(full) as diff:
        head = {name for name in diff if diff[name].kind == "new"}
        stored: dict[str, Any] = {"layout": False, "metadata": diff.metadata, "threads": 1}
    largest: dict[str, Any] = {"density": density, "values": "f16"}
    with tempfile.TemporaryDirectory() as name:
        tuned = Path(name) / "tuned"
        diffpack.apply(model, full, tuned, threads=1)
        made = diffpack.extract(model, tuned, **largest, **stored)
        if budget:
            made = diffpack.extract(model, tuned, budget=made.nbytes, **stored)
    examples = read_tsv(dev)
    found = scores(examples.labels, load_task(model, made).predict(examples.texts, examples.pairs))
    weights = diffpack.load(model, full)
    body = {name: weights[name] for name in weights if name not in head}
    with_head, without = (diffpack.extract(model, part, **largest, **stored).nbytes for part in (weights, body))
    return {
        "scores": found,
        "bytes": made.nbytes,
        "bytes_without_head": made.nbytes - (with_head - without),
        "base_bytes": made.manifest.base.bytes,
        "cpu_seconds": time.process_time() - start,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--model", "--full", "--dev"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--density", type=float, required=True)
    parser.add_argument("--budget", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(json.dumps(measure(options.model, options.full, options.dev, options.density, options.budget)))


if __name__ == "__main__":
    main()
