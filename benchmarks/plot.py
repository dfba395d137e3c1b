"""Draw what a fine-tune costs on disk, from the committed numbers.

python -m benchmarks.plot benchmarks/results/foundation.csv docs/sizes.svg
"""

from __future__ import annotations

import csv
import sys

from benchmarks import figures

BARS = [
    ("full copy", None),
    ("exact diff, portable (zstd)", "real pair, portable: diff"),
    ("exact diff", "real pair, compact: diff"),
    ("0.5 % changed, f16 values", "0.5 % changed, f16: diff"),
    ("0.5 % changed, int8 values", "0.5 % changed, int8: diff"),
]


def main() -> None:
    source, target = sys.argv[1:]
    with open(source, newline="") as file:
        found = {row["what"]: float(row["value"]) for row in csv.DictReader(file) if row["value"]}
    sizes = [100.0 if key is None else found[key] for _, key in BARS]
    figure, axes = figures.pyplot(11).subplots(figsize=(8, 2.9), layout="constrained")
    colours = ["#9a9a9a", "#7aa6c2", "#2f6f9f", "#d98c3f", "#c2611f"]
    bars = axes.barh([label for label, _ in BARS], sizes, color=colours, height=0.66)
    axes.bar_label(bars, [f"{size:.3g} %" for size in sizes], padding=5)
    axes.set_xscale("log")
    axes.set_xlim(0.1, 300)
    figures.percent_axis(axes.xaxis, [0.1, 1, 10, 100])
    axes.set_xlabel("bytes on disk, % of the 90.9 MB model (log scale)")
    axes.invert_yaxis()
    figures.bare(axes, "top", "right", "left")
    axes.tick_params(axis="y", length=0)
    figures.save(figure, target)


if __name__ == "__main__":
    main()
