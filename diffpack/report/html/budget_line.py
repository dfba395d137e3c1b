"""A storage budget as a line: bases, the tasks stacked on them, and what is left."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from diffpack.report.budget import Budget
from diffpack.report.families import Family
from diffpack.report.html.labels import Labels
from diffpack.report.stats import Stats

MOST_SEGMENTS = 300
"""Tasks drawn one by one; thinner ones cannot be pointed at, and are drawn as one of each base."""
LENGTH = 1000
"""Units the line is wide; it is stretched to the page."""


@dataclass(frozen=True)
class Segment:
    """Bytes on the line: from `start` to `start` + `nbytes`; of a base or of tasks."""

    label: str
    is_base: bool
    start: int
    nbytes: int
    x: str
    width: str


@dataclass(frozen=True)
class BudgetLine:
    """The segments, and where the budget ends on the line, as units of `LENGTH`."""

    budget: Budget
    segments: tuple[Segment, ...]
    mark: str

    @property
    def left(self) -> int:
        """Bytes that are free."""
        return max(0, self.budget.nbytes - self.budget.used)


def budget_line(found: Stats, budget: Budget, labels: Labels) -> BudgetLine:
    """Lay what is used along the budget; if that is more, along what is used."""
    whole = max(budget.nbytes, budget.used, 1)
    one_by_one = len(found.diffs) <= MOST_SEGMENTS
    start, segments = 0, []
    for label, is_base, nbytes in (part for family in found.families for part in _parts(family, one_by_one, labels)):
        x, length = LENGTH * start / whole, LENGTH * nbytes / whole
        segments.append(Segment(label, is_base, start, nbytes, f"{x:.3f}", f"{length:.3f}"))
        start += nbytes
    return BudgetLine(budget, tuple(segments), f"{LENGTH * budget.nbytes / whole:.3f}")


def _parts(family: Family, one_by_one: bool, labels: Labels) -> Iterator[tuple[str, bool, int]]:
    yield f"base {family.base_name or family.base_fingerprint[:12]}", True, family.base_bytes
    if one_by_one:
        yield from ((labels[item.diff.name], False, item.diff.nbytes) for item in family.members)
    else:
        yield f"{family.versions:,} diffs of it", False, family.nbytes
