"""A thousand tasks of one base in a running model: added as files, decoded when used, as many as a limit lets stay.

::

    pip install 'diffpack[torch]'
    python examples/thousand_tasks.py

    1000 tasks added in 0.73 ms each: 6.8 MB of files, of a model of 1.1 MB
    2000 uses in random order: p50 0.86 ms, p95 9.41 ms
    decoded now: 190 tasks, 2.0 MB (limit 2.0); found decoded 349 times
    8 tensors of task0352 are right, bit for bit
    the base is back, every bit

Times are of the machine it ran on.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

import diffpack
from diffpack.live import TaskSwitcher

WIDTH = 256
DENSITY = 0.005


def make_model() -> nn.Module:
    """The base: a quarter of a million weights."""
    torch.manual_seed(0)
    layers = [nn.Linear(WIDTH, WIDTH) for _ in range(4)]
    return nn.Sequential(*(part for layer in layers for part in (layer, nn.GELU()))).eval()


def make_tasks(model: nn.Module, folder: Path, count: int) -> None:
    """Write tasks that change one weight in two hundred, as sparse training does."""
    base = {name: value.detach().numpy() for name, value in model.named_parameters()}
    rng = np.random.default_rng(0)
    for at in range(count):
        tuned = {}
        for name, value in base.items():
            tuned[name] = value.copy()
            chosen = rng.integers(0, value.size, round(DENSITY * value.size))
            tuned[name].flat[chosen] += rng.normal(0, 0.02, chosen.size).astype(np.float32)
        diffpack.extract(base, tuned, folder / f"task{at:04}.dpk")


def main() -> None:
    """Make them, add them, use them in random order."""
    parser = argparse.ArgumentParser(description="A thousand tasks in a running model.")
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--uses", type=int, default=2000)
    parser.add_argument("--decoded-kb", type=int, default=2000, help="kilobytes of decoded tasks that are kept")
    options = parser.parse_args()
    model = make_model()
    whole = sum(value.nbytes for value in model.parameters())
    before = [value.clone() for value in model.parameters()]
    with tempfile.TemporaryDirectory() as name:
        make_tasks(model, Path(name), options.tasks)
        with TaskSwitcher(model, decoded_bytes=options.decoded_kb * 1000) as switcher:
            start = time.perf_counter()
            for path in sorted(Path(name).glob("*.dpk")):
                switcher.add(path.stem, path)
            added = (time.perf_counter() - start) / options.tasks
            usage = switcher.usage()
            print(
                f"{usage.tasks} tasks added in {1000 * added:.2f} ms each: {usage.files / 1e6:.1f} MB of files, "
                f"of a model of {whole / 1e6:.1f} MB"
            )
            rng = random.Random(0)
            times = []
            for task in rng.choices(switcher.names, k=options.uses):
                start = time.perf_counter()
                switcher.use(task)
                times.append(1000 * (time.perf_counter() - start))
            p95 = statistics.quantiles(times, n=20)[-1]
            print(f"{options.uses} uses in random order: p50 {statistics.median(times):.2f} ms, p95 {p95:.2f} ms")
            usage = switcher.usage()
            print(
                f"decoded now: {len(usage.decoded)} tasks, {usage.decoded_bytes / 1e6:.1f} MB "
                f"(limit {usage.limit_bytes / 1e6:.1f}); found decoded {usage.found} times"
            )
            print(f"{switcher.verify()} tensors of {switcher.current} are right, bit for bit")
        same = all(torch.equal(value, old) for value, old in zip(model.parameters(), before, strict=True))
        print("the base is back, every bit" if same else "the base is not what it was")


if __name__ == "__main__":
    main()
