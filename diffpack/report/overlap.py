"""Where tasks of one base change the same entries: reads the diffs' data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TaskOverlap:
    """Of each pair of diffs of one base how many entries both change; `both[i][i]` is what diff i changes itself.

    `names` are those of the diffs, in the order of rows and columns. `missing` are diffs that could not be read for it,
    with the reason.
    """

    base_fingerprint: str
    names: tuple[str, ...]
    both: tuple[tuple[int, ...], ...]
    missing: tuple[tuple[str, str], ...] = ()

    def jaccard(self, first: int, second: int) -> float:
        """Entries both change / entries any of the two changes (1 if there is none)."""
        shared = self.both[first][second]
        union = self.both[first][first] + self.both[second][second] - shared
        return shared / union if union else 1.0
