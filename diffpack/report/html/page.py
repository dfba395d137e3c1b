"""The report as one HTML file: style, script and drawings are inside, nothing is loaded."""

from __future__ import annotations

from collections.abc import Sequence

from diffpack.report.budget import Budget
from diffpack.report.contents.histograms import DiffHistograms
from diffpack.report.contents.overlap import TaskOverlap
from diffpack.report.document import document
from diffpack.report.gate import Excess
from diffpack.report.html.budget_line import budget_line
from diffpack.report.html.labels import Labels
from diffpack.report.html.rendering import allowed_hash, own_text, render
from diffpack.report.html.sections import sections
from diffpack.report.html.totals import totals
from diffpack.report.stats import Stats

TITLE = "Storage report"


def page(
    found: Stats,
    *,
    budget: Budget | None = None,
    exceeded: Sequence[Excess] = (),
    overlaps: Sequence[TaskOverlap] = (),
    histograms: Sequence[DiffHistograms] = (),
    title: str = TITLE,
) -> str:
    """Make the page; the same input gives the same text. Density by layer is on it if tensors were counted.

    `overlaps` are found by the base they belong to, `histograms` by the names of their diffs. Nothing in names or
    recipes is read as HTML, and a content security policy forbids every script but the page's own.
    """
    rows = document(found, budget=budget, exceeded=exceeded)
    labels = Labels.of([item.name for item in found.diffs] + [item.name for item in found.problems])
    script = own_text("script.js")
    return render(
        "page.html",
        title=title,
        rows=rows,
        totals=totals(found.families),
        labels=labels,
        sections=sections(found.families, labels, {item.name for item in exceeded}, overlaps, histograms),
        budget=None if budget is None else budget_line(found, budget, labels),
        style=own_text("style.css"),
        script=script,
        script_hash=allowed_hash(script),
    )
