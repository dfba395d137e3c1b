"""How time grows with size: a line a profile, beside the plain process."""

from __future__ import annotations

from pathlib import Path

from benchmarks import figures
from benchmarks.speed.made import KINDS
from benchmarks.speed.report import OURS, Rows
from benchmarks.speed.results import APPLY, EXTRACT
from diffpack.format.features import PROFILES

_COLOURS = {"compact": "#2f6f9f", "portable": "#7aa6c2", "smallest": "#c2611f"}
_PLAIN = {EXTRACT: "reading and hashing both", APPLY: "copying and hashing"}


def draw(rows: Rows, target: Path) -> None:
    """Draw seconds against megabytes, both on log scales: extract above, apply below, a column a kind."""
    kinds = [kind.name for kind in KINDS if any(key[0] == kind.name for key in rows)]
    plt = figures.pyplot(10)
    figure, axes = plt.subplots(
        2, len(kinds), figsize=(3.3 * len(kinds), 5.6), sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    for column, kind in enumerate(kinds):
        sizes = sorted({size for found, size, *_ in rows if found == kind})
        for panel, verb in zip(axes[:, column], (EXTRACT, APPLY), strict=True):
            for tool, colour in [("plain", "#444444"), *((f"{OURS} {name}", _COLOURS[name]) for name in PROFILES)]:
                known = [size for size in sizes if (kind, size, tool, verb) in rows]
                seconds = [rows[kind, size, tool, verb].seconds for size in known]
                told = " / ".join(_PLAIN.values()) if tool == "plain" else tool
                label = told if panel is axes[0, 0] else None
                style = "--" if tool == "plain" else "-"
                panel.plot(known, seconds, style, marker="o", markersize=4, color=colour, label=label)
            panel.set_xscale("log")
            panel.set_yscale("log")
            panel.grid(color="#dddddd", linewidth=0.7)
            figures.percent_axis(panel.xaxis, sizes)
            figures.percent_axis(panel.yaxis, [0.1, 1, 10, 100])
            figures.bare(panel, "top", "right")
        axes[0, column].set_title(kind, fontsize=10)
        axes[1, column].set_xlabel("MB a side")
    for panel, verb in zip(axes[:, 0], (EXTRACT, APPLY), strict=True):
        panel.set_ylabel(f"{verb}, seconds")
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    figures.save(figure, target)
    plt.close(figure)
