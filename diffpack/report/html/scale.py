"""Colours of cells: ten levels, on a logarithmic scale."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

LEVELS = 10
"""As many colours as the style sheet has; every one of them is told from text on it (WCAG AA)."""
_LEAST_SPAN = 10.0
"""What is all alike looks so: the scale spans a decade at least."""
_MOST_SPAN = 1e4
"""A new head (all of it changed) beside a sparse body leaves the body some colours: four decades."""


@dataclass(frozen=True)
class Scale:
    """From `low` (level 0) to `high` (the last one); what lies outside has the nearest level."""

    low: float
    high: float

    @classmethod
    def of(cls, numbers: Iterable[float]) -> Scale:
        """The scale of positive numbers; zeros are left out."""
        found = [number for number in numbers if number > 0]
        if not found:
            return cls(0.1, 1.0)
        high = max(found)
        return cls(min(max(min(found), high / _MOST_SPAN), high / _LEAST_SPAN), high)

    def level(self, number: float) -> int | None:
        """The colour of a number, None for nothing."""
        if number <= 0:
            return None
        along = math.log(number / self.low) / math.log(self.high / self.low)
        return max(0, min(LEVELS - 1, math.floor(along * (LEVELS - 1) + 0.5)))
