"""What bases and their diffs cost together, against full copies and adapters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from diffpack.report.families import Family


@dataclass(frozen=True)
class Totals:
    """Sums over bases. `stored_bytes` are bases and diffs without side files, which full copies would need as well.

    `break_even` is a single base's: with how many diffs they are less than full copies.
    """

    bases: int
    models: int
    versions: int
    base_bytes: int
    diff_bytes: int
    side_file_bytes: int
    stored_bytes: int
    full_bytes: int
    adapter_bytes: int
    break_even: int | None

    @property
    def weight_bytes(self) -> int:
        """Bytes of the diffs without side files."""
        return self.diff_bytes - self.side_file_bytes

    def multiple(self, nbytes: int) -> float:
        """Bytes as a multiple of the bases'."""
        return nbytes / self.base_bytes if self.base_bytes else 0.0

    @property
    def saving(self) -> float:
        """How many times less than full copies is stored."""
        return self.full_bytes / self.stored_bytes if self.stored_bytes else 0.0


def totals(families: Sequence[Family]) -> Totals | None:
    """Sum up. None if there is no base."""
    if not families:
        return None
    return Totals(
        bases=len(families),
        models=sum(item.models for item in families),
        versions=sum(item.versions for item in families),
        base_bytes=sum(item.base_bytes for item in families),
        diff_bytes=sum(item.nbytes for item in families),
        side_file_bytes=sum(item.side_file_bytes for item in families),
        stored_bytes=sum(item.stored_bytes for item in families),
        full_bytes=sum(item.full_bytes for item in families),
        adapter_bytes=sum(item.adapter_bytes for item in families),
        break_even=families[0].break_even if len(families) == 1 else None,
    )
