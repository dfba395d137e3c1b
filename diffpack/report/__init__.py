"""What diffs cost, for people: many diffs with their bases counted together, their budgets, and pages to read."""

from typing import TYPE_CHECKING

from diffpack.support.lazily import lazy_members

if TYPE_CHECKING:
    from diffpack.report.budget import Budget
    from diffpack.report.contents.histograms import DiffHistograms, histograms
    from diffpack.report.contents.overlap import TaskOverlap, overlaps
    from diffpack.report.document import document
    from diffpack.report.gate import Excess, Gate
    from diffpack.report.html.page import page
    from diffpack.report.rows import schema
    from diffpack.report.spreadsheet import spreadsheet
else:
    __getattr__ = lazy_members(
        __name__,
        {
            "Budget": "budget",
            "DiffHistograms": "contents.histograms",
            "Excess": "gate",
            "Gate": "gate",
            "TaskOverlap": "contents.overlap",
            "document": "document",
            "histograms": "contents.histograms",
            "overlaps": "contents.overlap",
            "page": "html.page",
            "schema": "rows",
            "spreadsheet": "spreadsheet",
        },
    )

__all__ = [
    "Budget",
    "DiffHistograms",
    "Excess",
    "Gate",
    "TaskOverlap",
    "document",
    "histograms",
    "overlaps",
    "page",
    "schema",
    "spreadsheet",
]
