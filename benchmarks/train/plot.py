"""Draw quality against bytes from the committed rows, and print their table in Markdown.

    python -m benchmarks.train.plot benchmarks/results/train.csv docs/train.svg [docs/train.md]

With a page named, the table between its two marks is replaced. One task one panel; a point is the mean over the seeds,
a line joins one method's densities or budgets.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import figures
from benchmarks.page import placed
from benchmarks.train.plans import IN_BUDGETS
from benchmarks.train.rows import Groups, mean, named, percent, read

BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
STYLE = {  # label -> colour, marker
    "full": ("#333333", "s"), "sparse": ("#c2611f", "o"), "lt-sft": ("#d98c3f", "v"), "spiel": ("#e3b04b", "<"),
    "diff-pruning": ("#5b3f8c", "D"), "diff-pruning-structured": ("#8a6fc0", "d"), "non-adaptive": ("#b9a6e0", "P"),
    "bitfit": ("#3f8c5b", "^"), "adapters": ("#2f6f9f", "X"), "lora": ("#7aa6c2", "x"), "last-layer": ("#9a9a9a", "p"),
    "top-layers": ("#777777", "h"), "head-only": ("#bbbbbb", "*"), "posthoc-top-k": ("#a03030", "1"),
    "posthoc-grid": ("#d06060", "2"), "posthoc-budget": ("#d1002c", "."), "magnitude-pruning": ("#5a5a2a", "+"),
    "movement-pruning": ("#8a8a4a", "|"),
}  # fmt: skip
LEAST_SHARE = 1e-3
"""% of the base at which a file of hardly more than the head is drawn: the axis is logarithmic."""
LEAST_WRONG = 0.1
"""% of texts: a model without a wrong one is drawn so, on an axis that is logarithmic in what is wrong."""
ACCURACIES = (50, 60, 70, 80, 85, 90, 95, 98, 99)
"""% at which that axis has ticks."""
THIN, BOLD = 0.7, 1.8
"""Widths of lines; what an ordinary fine-tune becomes stands out."""


def curves(groups: Groups) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """Give the points of each line, the smallest file first: % of the base's bytes without the head, accuracy in %.

    A line is one method's densities, or its byte budgets; other variants (selections, sizes) are lines of their own.
    """
    found: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for (method, variant, _), rows in groups.items():
        share = max(mean(rows, "share_without_head_pct"), LEAST_SHARE)
        found[method, "" if method == IN_BUDGETS else variant].append((share, 100 * mean(rows, "accuracy")))
    return {line: sorted(points) for line, points in found.items()}


def by_errors(panel: Any) -> None:
    """Show accuracies by the logarithm of what is wrong: those near the best stand apart, ruined ones stay in sight."""

    def height(percents: Any) -> Any:
        return -np.log10(np.maximum(100 - percents, LEAST_WRONG))

    def percents(heights: Any) -> Any:
        return 100 - 10 ** np.negative(heights)

    panel.set_yscale("function", functions=(height, percents))


def draw(found: dict[str, Groups], target: str) -> None:
    figure, axes = figures.pyplot(9).subplots(
        1, len(found), figsize=(3.1 * len(found) + 1.6, 3.6), layout="constrained", squeeze=False
    )
    used: dict[str, Any] = {}
    for panel, (task, groups) in zip(axes[0], found.items(), strict=True):
        by_errors(panel)
        for (method, _), points in curves(groups).items():
            colour, marker = STYLE[method]
            width = BOLD if method == IN_BUDGETS else THIN
            (used[method],) = panel.plot(
                *zip(*points, strict=True), color=colour, marker=marker, linewidth=width, markersize=5.5
            )
        panel.set_xscale("log")
        figures.percent_axis(panel.xaxis)
        low, high = panel.get_ylim()
        figures.percent_axis(panel.yaxis, [tick for tick in ACCURACIES if low <= tick <= high])
        panel.set_title(task, fontsize=9)
        panel.set_xlabel("% of the base's bytes, without the head")
        figures.bare(panel, "top", "right")
    axes[0][0].set_ylabel("dev accuracy, % (logarithm of errors)")
    order = [method for method in STYLE if method in used]
    figure.legend([used[method] for method in order], order, loc="outside right center", frameon=False)
    figures.save(figure, target)


def table(found: dict[str, Groups]) -> str:
    """Give a row for each method, a column for each task: accuracy in %.

    Bytes without the head (% of the base) and seconds are the first task's: means over the tasks that a method
    happens to have rows of would not compare.
    """
    first = next(iter(found))
    keys = sorted(
        {key for groups in found.values() for key in groups}, key=lambda key: (list(STYLE).index(key[0]), key)
    )
    lines = [
        "| method | density | " + " | ".join(found) + " | bytes | CPU seconds |",
        "|---|---|" + "---|" * (len(found) + 2),
    ]
    for key in keys:
        cells = []
        for groups in found.values():
            scores = [100 * float(row["accuracy"]) for row in groups.get(key, [])]
            spread = f" ± {statistics.stdev(scores):.1f}" if len(scores) > 1 else ""
            cells.append(f"{statistics.fmean(scores):.1f}{spread}" if scores else "")
        rows = found[first].get(key, [])
        cost = f"{mean(rows, 'share_without_head_pct'):.2g} %" if rows else ""
        seconds = mean(rows, "cpu_seconds")
        lines.append(
            f"| {named((*key[:2], '0'))} | {percent(key)} | {' | '.join(cells)} | {cost} | "
            f"{'' if math.isnan(seconds) else f'{seconds:.0f}'} |"
        )
    return "\n".join(lines)


def main() -> None:
    source, target, *page = sys.argv[1:]
    found = read(Path(source))
    draw(found, target)
    text = table(found)
    if page:
        path = Path(page[0])
        path.write_text(placed(path.read_text(), BEGIN, END, text))
    else:
        print(text)


if __name__ == "__main__":
    main()
