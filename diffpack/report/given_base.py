"""The base a report is given, and of which diffs it is the base."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TypeAlias

from diffpack.algebra.checks import check_base
from diffpack.checkpoints import Checkpoint, CheckpointLike, open_checkpoint
from diffpack.checkpoints.fingerprint import fingerprint
from diffpack.diff.diff import Diff, DiffLike, open_diff


class GivenBase:
    """A base, or none. Hashed once: whose it is, its fingerprint tells."""

    def __init__(self, base: CheckpointLike | None, threads: int | None = None) -> None:
        self.checkpoint = None if base is None else open_checkpoint(base)
        self._threads = threads
        self.fingerprint = None if self.checkpoint is None else fingerprint(self.checkpoint, threads=threads)

    @classmethod
    def once(cls, base: BaseLike, threads: int | None = None) -> GivenBase:
        """The base, hashed now if it was not before."""
        return base if isinstance(base, GivenBase) else cls(base, threads)

    def of(self, base_fingerprint: str) -> Checkpoint | None:
        """The base for diffs of this fingerprint, None if it is not there or another one."""
        return self.checkpoint if base_fingerprint == self.fingerprint else None

    def check(self, diffs: Sequence[tuple[DiffLike, str]]) -> None:
        """Raise `WrongBaseError` if it is the base of none of some diffs, given with their bases' fingerprints."""
        if self.checkpoint is None or not diffs or any(self.of(found) is not None for _, found in diffs):
            return
        with opened(diffs[0][0]) as first:
            check_base(first, self.checkpoint, self._threads)


BaseLike: TypeAlias = "CheckpointLike | GivenBase | None"
"""What a report takes as a base: several of one base take one that is hashed already."""


def opened(source: DiffLike) -> AbstractContextManager[Diff]:
    """A diff to be used in a `with` statement, at whose end one that is opened here is closed.

    Raises as `open_diff` does.
    """
    return nullcontext(source) if isinstance(source, Diff) else open_diff(source)


@dataclass(frozen=True)
class Glance:
    """What a manifest says first: the fingerprint of the diff's base, and bytes of its result."""

    base_fingerprint: str
    result_bytes: int


def glance(source: DiffLike) -> Glance:
    """Read a diff's manifest alone. Raises as `open_diff` does."""
    with opened(source) as diff:
        return Glance(diff.manifest.base.fingerprint, diff.manifest.result.bytes)
