"""A gate for storage budgets: which diffs are larger than they may be, one by one and together."""

from __future__ import annotations

from dataclasses import dataclass

from diffpack.report.stats import Stats
from diffpack.support.amounts import percent, size
from diffpack.support.sizes import parse_size

ALL = ""
"""The name of what all diffs of a base come to."""


@dataclass(frozen=True)
class Excess:
    """What is larger than it may be: a diff, or all of them (`ALL`); `nbytes` is its size, `most` what it may have."""

    name: str
    nbytes: int
    most: int
    base_bytes: int

    def __str__(self) -> str:
        what = self.name or "all diffs"
        return (
            f"{what}: {size(self.nbytes)} ({percent(self.nbytes / self.base_bytes) if self.base_bytes else '-'} of the "
            f"base), over {size(self.most)} by {self.nbytes - self.most:,} bytes"
        )


@dataclass(frozen=True)
class Gate:
    """The most bytes a diff may have, and all may have together: as bytes (int), or as a part of the base's (float).

    Counted is the whole file, with its side files. Bases are not counted.
    """

    each: int | float | None = None
    total: int | float | None = None

    @classmethod
    def of(cls, each: int | float | str | None, total: int | float | str | None) -> Gate:
        """Read what the user says: `5MB`, `1%`. Raises `UsageError`."""
        return cls(*(None if item is None else parse_size(item) for item in (each, total)))

    def exceeded(self, found: Stats) -> tuple[Excess, ...]:
        """What of the diffs is too large, in their order, and at the end all of them if they are together."""
        excesses: list[Excess] = []
        if self.each is not None:
            each = [(member.diff, family) for family in found.families for member in family.members]
            excesses += [_excess(item.name, item.nbytes, self.each, family.base_bytes) for item, family in each]
        if self.total is not None:
            excesses.append(_excess(ALL, found.nbytes, self.total, found.base_bytes))
        return tuple(item for item in excesses if item.nbytes > item.most)


def _excess(name: str, nbytes: int, most: int | float, base_bytes: int) -> Excess:
    return Excess(name, nbytes, int(most * base_bytes) if isinstance(most, float) else most, base_bytes)
