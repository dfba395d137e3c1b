"""A storage budget: what bases and diffs take of it, and how many more such diffs fit."""

from __future__ import annotations

from dataclasses import dataclass

from diffpack.report.stats import Stats
from diffpack.support.sizes import whole_size


@dataclass(frozen=True)
class Budget:
    """`nbytes` for the tensors of all bases and all diffs, side files included; `used` is what they take.

    `more` is how many more diffs of the mean size there fit, negative how many are too many; `over` what is missing.
    """

    nbytes: int
    used: int
    more: int

    @classmethod
    def of(cls, size: int | str, found: Stats) -> Budget:
        """A budget as people write it, for what was counted. Raises `UsageError`."""
        nbytes = whole_size(size)
        return cls(nbytes, found.base_bytes + found.nbytes, found.fitting(nbytes))

    @property
    def over(self) -> int:
        """Bytes by which it is overdrawn; 0 if it is not."""
        return max(0, self.used - self.nbytes)
