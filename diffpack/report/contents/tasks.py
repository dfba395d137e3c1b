"""The diffs of one base brought under one set of names; what cannot be read or brought there is set aside, with why."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from diffpack.algebra.lifted import Lifted, lifted
from diffpack.algebra.resolve import by_own_names
from diffpack.algebra.shared_names import SharedNames, share_names
from diffpack.checkpoints import Checkpoint
from diffpack.diff.diff import Diff, DiffLike
from diffpack.diff.record import TensorDiff
from diffpack.errors import DiffpackError, UsageError
from diffpack.report.contents.marks import Key
from diffpack.report.found import called
from diffpack.report.given_base import opened

_KEPT_BYTES = 128 << 20
"""Decoded spans that are kept of all diffs together: a span of each may hold the end of one tensor and the next."""


class Tasks:
    """The diffs of one base by their places; those that fail go from `kept` to `missing`, with their names and why.

    `base` is theirs, or None.
    """

    def __init__(self, base: Checkpoint | None, threads: int | None, missing: dict[int, tuple[str, str]]) -> None:
        self.base = base
        self.threads = threads
        self.kept: dict[int, Diff] = {}
        self.missing = missing

    def open(self, at: int, source: DiffLike, stack: ExitStack) -> None:
        """Open one, to be closed with the stack."""
        try:
            self.kept[at] = stack.enter_context(opened(source))
        except DiffpackError as error:
            self.missing[at] = called(source)[0], str(error)

    def drop(self, at: int, error: DiffpackError) -> None:
        """Give one up."""
        self.missing[at] = self.kept.pop(at).name, str(error)

    def _each(self, work: Callable[[Diff], Diff]) -> None:
        """Put what `work` makes of each in its place."""
        for at, diff in list(self.kept.items()):
            try:
                self.kept[at] = work(diff)
            except DiffpackError as error:
                self.drop(at, error)

    def _by_base_names(self) -> None:
        """Make every diff one that compares tensors with those of their own names; the base may be lifted for it."""
        try:
            lift = self._lifted(*self.kept.values())
        except DiffpackError:  # one of them is damaged
            self._each(self._alone)
            lift = self._lifted(*self.kept.values()) if self.kept else None
        if lift is None:
            self._each(lambda diff: by_own_names(diff, self.base, self.threads))
        else:
            self.kept, self.base = dict(zip(self.kept, lift.diffs, strict=True)), lift.base

    def _lifted(self, *diffs: Diff) -> Lifted | None:
        return lifted(diffs, self.base, self.threads)

    def _alone(self, diff: Diff) -> Diff:
        """The diff, if it can be lifted or need not be."""
        self._lifted(diff)
        return diff

    def _shared_names(self) -> list[SharedNames]:
        """The names under which they meet; diffs that cannot be brought together with those before are given up."""
        try:
            return share_names([*self.kept.values()], self.base, guess=True)
        except UsageError:
            chosen: list[Diff] = []
            for at, diff in list(self.kept.items()):
                try:
                    share_names([*chosen, diff], self.base, guess=True)
                    chosen.append(diff)
                except UsageError as error:
                    self.drop(at, error)
        return share_names(chosen, self.base, guess=True)

    def records(self) -> dict[int, dict[Key, TensorDiff]]:
        """The records of each by where they meet, decoded as they are walked through."""
        if self.kept:
            self._by_base_names()
        names = dict(zip(self.kept, self._shared_names() if self.kept else [], strict=True))
        found = {}
        for at, diff in list(self.kept.items()):
            shared = names[at].shared()
            try:
                references = self.base and diff.may_need_base and diff.view(self.base).reference
            except DiffpackError as error:
                self.drop(at, error)
                continue
            records = diff.read_once(_KEPT_BYTES // len(self.kept), references or None)
            found[at] = {(shared[name], record.info, record.base): record for name, record in records.items()}
        return found
