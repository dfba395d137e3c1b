"""Cut a full fine-tune down after training, and score what is left: one row of the trainer's table, as JSON.

    python -m benchmarks.train.posthoc --model DIR --full full.dpk --dev dev.tsv --budget '0.25 %'
    python -m benchmarks.train.posthoc --model DIR --full full.dpk --dev dev.tsv --density 0.005 [--grid]

With --budget it is the file of `diffpack extract --budget --no-files`. With --density the largest changes up to it are
taken, as f16; with --grid the best of the grid alone in the bytes these take. The score is that of the stored file's
tensors, the base's with its changes, in a classifier that the full fine-tune's own config.json describes.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import diffpack
from diffpack.train.evaluate import load_task, scores
from diffpack.train.texts import read_tsv

Cut = Callable[[Path, Path], diffpack.Diff]
"""The fine-tuned model's folder, the file to write -> what is written."""
HEAD_BESIDE = 0.001
"""A density at which the head's cost is taken: it is stored exactly beside whatever else there is."""


def in_budget(model: Path, budget: str) -> Cut:
    """Cut as anybody would: the command's defaults, without side files."""
    return lambda tuned, out: diffpack.extract(model, tuned, out, budget=budget, files="none", threads=1)


def at_density(model: Path, density: float, metadata: dict[str, str], *, grid: bool) -> Cut:
    """Keep the largest changes, or spend their bytes on the grid; with the notes and side files the trainer keeps."""
    stored: dict[str, Any] = {"layout": False, "metadata": metadata, "threads": 1}

    def cut(tuned: Path, out: Path) -> diffpack.Diff:
        if not grid:
            return diffpack.extract(model, tuned, out, density=density, values="f16", **stored)
        with diffpack.extract(model, tuned, density=density, values="f16", **stored) as largest:
            return diffpack.extract(model, tuned, out, budget=largest.nbytes, rank=0, **stored)

    return cut


def head_bytes(model: Path, full: Path) -> int:
    """Give what the head's tensors take in a file."""
    weights = diffpack.load(model, full)
    with diffpack.open(full) as diff:
        body = {name: weights[name] for name in weights if name not in diff or diff[name].kind != "new"}
    sizes = []
    for part in (weights, body):
        with diffpack.extract(model, part, density=HEAD_BESIDE, values="f16", layout=False, threads=1) as made:
            sizes.append(made.nbytes)
    return sizes[0] - sizes[1]


def measure(model: Path, full: Path, dev: Path, cut: Cut) -> dict[str, Any]:
    """Apply the full fine-tune, cut it, score the file and weigh it. The seconds are those of all that."""
    start = time.process_time()
    with tempfile.TemporaryDirectory() as name:
        tuned, out = Path(name) / "tuned", Path(name) / "cut.dpk"
        diffpack.apply(model, full, tuned, threads=1)
        with cut(tuned, out) as made:
            base_bytes = made.manifest.base.bytes
            left = diffpack.load(model, made, framework="torch")
        nbytes = out.stat().st_size
    task = load_task(model, full)
    task.model.load_state_dict(left)  # refuses if a tensor is missing or is one too many
    examples = read_tsv(dev)
    found = scores(examples.labels, task.predict(examples.texts, examples.pairs))
    return {
        "scores": found,
        "bytes": nbytes,
        "bytes_without_head": nbytes - head_bytes(model, full),
        "base_bytes": base_bytes,
        "cpu_seconds": time.process_time() - start,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--model", "--full", "--dev"):
        parser.add_argument(name, type=Path, required=True)
    size = parser.add_mutually_exclusive_group(required=True)
    size.add_argument("--budget", help="of the base's bytes: 0.25 %%")
    size.add_argument("--density", type=float)
    parser.add_argument("--grid", action="store_true", help="with --density: the grid in as many bytes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.budget is not None:
        cut = in_budget(options.model, options.budget)
    else:
        with diffpack.open(options.full) as diff:
            cut = at_density(options.model, options.density, dict(diff.metadata), grid=options.grid)
    print(json.dumps(measure(options.model, options.full, options.dev, cut)))


if __name__ == "__main__":
    main()
