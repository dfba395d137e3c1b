"""Ten fine-tunes of one base: one run with all of them, against ten runs."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import ml_dtypes
import numpy as np

from benchmarks import pairs
from benchmarks.processes import timed
from benchmarks.speed.results import EXTRACT, Row

KIND = "ten fine-tunes"
MEGABYTES = 500
_COUNT = 10
_TENSORS, _COLUMNS = 20, 2048
_CHANGED = 0.01
_ROUNDS = 2


def make(folder: Path, megabytes: int) -> tuple[Path, list[Path]]:
    """Write a bfloat16 base and fine-tunes of it, 1 % of whose entries are changed at random."""
    rng = np.random.default_rng(2)
    rows = megabytes * 10**6 // 2 // _TENSORS // _COLUMNS
    base = {
        f"layers.{at:02d}.weight": (0.02 * rng.standard_normal((rows, _COLUMNS), np.float32)).astype(ml_dtypes.bfloat16)
        for at in range(_TENSORS)
    }
    folder.mkdir(parents=True, exist_ok=True)
    pairs.write(folder / "base.safetensors", base)
    paths = [folder / f"task-{at}.safetensors" for at in range(_COUNT)]
    for path in paths:
        tuned = {name: array.copy() for name, array in base.items()}
        for array in tuned.values():
            words = array.view(np.uint16).reshape(-1)
            where = rng.integers(0, words.size, int(_CHANGED * words.size))
            words[where] ^= rng.integers(1, 4, where.size).astype(np.uint16)
        pairs.write(path, tuned)
    return folder / "base.safetensors", paths


def measure(work: Path, machine: str, megabytes: int = MEGABYTES) -> Row:
    """The seconds of one run, beside those of as many runs as there are fine-tunes; exits if a diff is another."""
    folder = work / "fine-tunes"
    base, paths = make(folder, megabytes)
    program = [sys.executable, "-m", "diffpack_cli", "extract", "--base", str(base), "--force", "-q"]
    together, apart = folder / "together", folder / "apart"
    apart.mkdir()
    all_of_them = [argument for path in paths for argument in ("--tuned", str(path))]
    best, peak = {"one": float("inf"), "ten": float("inf")}, 0
    try:
        for _ in range(_ROUNDS):
            seconds, used = timed([*program, *all_of_them, "-o", str(together)])
            best["one"], peak = min(best["one"], seconds), max(peak, used)
            own = [timed([*program, "--tuned", str(path), "-o", str(apart / f"{path.stem}.dpk")])[0] for path in paths]
            best["ten"] = min(best["ten"], sum(own))
        for path in paths:
            if (together / f"{path.stem}.dpk").read_bytes() != (apart / f"{path.stem}.dpk").read_bytes():
                sys.exit(f"{path.stem}: another diff in one run with others")
        size = sum(file.stat().st_size for file in together.iterdir())
    finally:
        shutil.rmtree(folder)
    one, ten = round(best["one"], 3), round(best["ten"], 3)
    return Row(KIND, megabytes, "diffpack one run", EXTRACT, one, ten, size, round(peak / 1e6, 1), machine)
