"""One line a pair: where diffpack, the peers and the entropy bound lie."""

from __future__ import annotations

from pathlib import Path

from benchmarks import figures
from benchmarks.size import report
from benchmarks.size.catalogue import BY_NAME
from benchmarks.size.results import BOUND, Row

OURS, EXACT, LOSSY, LIMIT = "#c2611f", "#2f6f9f", "#a9c3d4", "#444444"


def draw(rows: list[Row], target: Path) -> None:
    """Draw sizes as % of the tuned tensors' bytes on a log scale."""
    names = [name for name in BY_NAME if report.of(rows, name)]
    plt = figures.pyplot(10)
    figure, axes = plt.subplots(figsize=(9, 0.62 * len(names) + 1.5), layout="constrained")
    for at, name in enumerate(names):
        found = [row for row in report.of(rows, name) if row.size >= 0]
        peers = [row for row in found if not report.ours(row) and row.tool != BOUND]
        for exact, colour in (("yes", EXACT), ("no", LOSSY)):
            sizes = [row.percent for row in peers if row.exact == exact]
            label = {"yes": "peers, exact", "no": "peers, not bit-exact"}[exact] if at == 0 else None
            axes.scatter(sizes, [at] * len(sizes), s=34, color=colour, label=label, alpha=0.85, linewidths=0)
        for row in found:
            if row.tool == BOUND:
                label = "entropy bound of order 0" if at == 0 else None
                axes.scatter([row.percent], [at], s=190, marker="|", color=LIMIT, label=label, linewidths=1.6)
        mine, peer = report.best(found, mine=True), report.best(found, mine=False)
        if mine:
            label = "diffpack, its smallest profile" if at == 0 else None
            axes.scatter([mine.percent], [at], s=70, color=OURS, label=label, zorder=3)
            text = f"{mine.percent:.3g} %"
            axes.annotate(text, (mine.percent, at), (0, 8), textcoords="offset points", ha="right", color=OURS)
        if peer:
            text = f"{peer.tool.split(',')[0]}: {peer.percent:.3g} %"
            axes.annotate(text, (peer.percent, at), (3, 8), textcoords="offset points", color=EXACT, fontsize=9)
    axes.set_xscale("log")
    figures.percent_axis(axes.xaxis)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.8)
    axes.set_xlabel("diff, % of the tuned tensors' bytes (log scale)")
    axes.grid(axis="x", color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    figures.bare(axes, "top", "right", "left")
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside upper center", ncols=4, frameon=False)
    figures.save(figure, target)
    plt.close(figure)
