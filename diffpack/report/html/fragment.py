"""The summary of what was counted as a piece of HTML with its style inside, as notebooks show it.

Knows the families of diffs, not `Stats`, whose method this is.
"""

from __future__ import annotations

from collections.abc import Sequence

from diffpack.report.families import Family
from diffpack.report.html.labels import Labels
from diffpack.report.html.rendering import render
from diffpack.report.html.totals import totals

MOST_ROWS = 20
"""Diffs a notebook lists; a page has them all."""


def summary(families: Sequence[Family], unread: int = 0) -> str:
    """What the diffs of all bases cost; `unread` could not be counted. Names are escaped."""
    members = [member for family in families for member in family.members]
    return render(
        "fragment.html",
        totals=totals(families),
        members=members[:MOST_ROWS],
        labels=Labels.of([item.diff.name for item in members]),
        more=max(0, len(members) - MOST_ROWS),
        unread=unread,
    )
