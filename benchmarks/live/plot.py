"""How long a switch takes, ours and PEFT's."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from benchmarks import figures
from benchmarks.live.results import Row

_OURS, _OTHERS = "#2f6f9f", "#9a9a9a"


def draw(rows: Iterable[Row], target: Path) -> None:
    """Draw the medians of the part `peers`, in milliseconds, as bars."""
    found = [(row.what.removesuffix(", median"), float(row.value)) for row in rows if row.what.endswith(", median")
             and row.part == "peers"]  # fmt: skip
    found.sort(key=lambda item: -item[1])
    plt = figures.pyplot(10)
    figure, axes = plt.subplots(figsize=(7, 0.5 * max(len(found), 1) + 0.9), layout="constrained")
    colours = [_OURS if what.startswith("diffpack") else _OTHERS for what, _ in found]
    bars = axes.barh([what.replace("`", "") for what, _ in found], [value for _, value in found], color=colours)
    axes.bar_label(bars, [f"{value:.2g} ms" for _, value in found], padding=4)
    axes.set_xlabel("milliseconds a switch")
    axes.margins(x=0.15)
    figures.bare(axes, "top", "right")
    figures.save(figure, target)
    plt.close(figure)
