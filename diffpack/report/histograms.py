"""How far a diff moves its entries: steps in units in the last place, and magnitudes; reads the diff's data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Histogram:
    """Counts of changed entries between `edges`: bin i holds edges[i] <= x < edges[i + 1]; powers of two."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class DiffHistograms:
    """One diff: |steps| in ulp of its exact values, |changes| as floats; None where they are not known.

    `why` says why one is not: steps of a diff coded against its base, and the changes of exact values, need the base.
    """

    name: str
    steps: Histogram | None
    magnitudes: Histogram | None
    why: str = ""
