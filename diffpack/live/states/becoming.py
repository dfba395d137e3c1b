"""What a diff makes of tensors in memory, checked before anything is written: which change, where, and to what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from diffpack.diff.diff import Diff
from diffpack.diff.record import TensorDiff
from diffpack.errors import CorruptFileError, ResultMismatchError, UsageError, WrongBaseError
from diffpack.live.states.state import State
from diffpack.result import overflow
from diffpack.support.names import listed, printable
from diffpack.support.parallel import run_all
from diffpack.tensors.digests import DIGEST_BYTES, PairHasher, combine
from diffpack.tensors.dtypes import Positions, Words
from diffpack.tensors.info import TensorInfo


@dataclass(frozen=True)
class Change:
    """What comes into a tensor: words at sorted positions (None: all of them). `infinite` counts those made so."""

    positions: Positions | None
    words: Words
    infinite: int = 0

    def same_as(self, other: Change) -> bool:
        """Whether another one writes the same."""
        if (self.positions is None) != (other.positions is None):
            return False
        at = self.positions is None or np.array_equal(self.positions, other.positions)  # type: ignore[arg-type]
        return at and np.array_equal(self.words, other.words)


_Part = tuple[Positions, Words, Words]
"""Positions of words that become others, and these words before and after."""


class Becoming:
    """One diff on its way into tensors: which of them change, and to what.

    With `known` the tensors are taken to be the diff's base: digests are not compared, and only words that change are
    read, where nothing is coded against the base. Raises `WrongBaseError`.
    """

    def __init__(self, diff: Diff, state: State, *, known: bool) -> None:
        self._diff, self._state, self._known = diff, state, known
        self.view = diff.view(state)
        self._records: Mapping[str, TensorDiff] = diff.bound(self.view.reference)
        self._wrong_base: list[str] = []
        self._wrong_result: list[str] = []
        manifest = diff.manifest
        made = {name: name for name in [*diff, *(manifest.copies or {}), *(manifest.slices or {})]}
        self._wanted = made | manifest.aliases
        if not known:
            self._require_digests()

    def _require_digests(self) -> None:
        """Raise `WrongBaseError` where digests of what changes do not tell the base, and the whole is another."""
        untold = [name for name, target in self._wanted.items() if target not in self._records]
        if not untold and any(record.base is not None for record in self._records.values()):
            return
        tensors, expected = self._state.tensors, self._diff.manifest.base.fingerprint
        found = combine(tensors, {name: self._state.digest(name) for name in tensors})
        if found != expected:
            raise WrongBaseError(
                f"{self._state.source}: cannot be told to be the base of {self._diff.name}, which makes tensors of "
                f"others that it does not change (fingerprint expected {expected}, found {found}): say by "
                "base_fingerprint= what it is [A1]"
            )

    def changes(self, threads: int | None) -> dict[str, Change]:
        """What comes into each tensor, by the model's names, of tied ones by the first. Raises as `apply_` does."""
        targets = self._targets()
        pairs = [(own, target) for own, wanted in targets.items() for target in wanted]
        try:
            made = run_all([partial(self._change, own, target) for own, target in pairs], threads)
        except CorruptFileError:  # chunks coded against the base do not fit another one
            self._check_bases()
            self._refuse_wrong()
            raise
        self._refuse_wrong()
        found: dict[str, Change] = {}
        for (own, _), change in zip(pairs, made, strict=True):
            if not found.setdefault(own, change).same_as(change):
                self._refuse_ties(own)
        return {own: change for own, change in found.items() if change.words.size}

    def _targets(self) -> dict[str, list[str]]:
        """The tensors to write, by the model's names, with the diff's names for what comes there.

        Raises `UsageError` for those of the result that have no place, and for places that are tied to others which
        stay as they are.
        """
        targets: dict[str, list[str]] = {}
        homeless = []
        said = set()
        for name, target in self._wanted.items():
            own, info = self._own(name), self._info(target)
            if own is None or self._state.info(own) != info:
                there = "" if own is None else f"; there it is {self._state.info(own)}"
                homeless.append(f"{printable(name)} ({info}{there})")
                continue
            said.add(own)
            wanted = targets.setdefault(self._state.ties.get(own, own), [])
            if target not in wanted:
                wanted.append(target)
        if homeless:
            raise UsageError(
                f"{self._state.source}: has no place for {listed(homeless)} of the result of {self._diff.name}: "
                "diffpack.load gives its tensors, diffpack.live.from_pretrained a model that has them"
            )
        self._check_ties(targets, said)
        return targets

    def _check_ties(self, targets: Mapping[str, Sequence[str]], said: set[str]) -> None:
        """Raise `UsageError` if a tensor that the base has apart from a changed one is tied to it in the model.

        A model may have more names of one tensor than its files: so many that without them it is the base.
        """
        ties = self._state.ties
        if len(self._state.tensors) - len(ties) >= self._diff.manifest.base.tensors:
            return
        removed = {self.view.own.get(name) for name in self._diff.manifest.removed}
        for own, first in ties.items():
            if first in targets and not {own, first} - removed <= said:
                self._refuse_ties(own)

    def _refuse_ties(self, own: str) -> None:
        first = self._state.ties.get(own, own)
        names = listed([printable(name) for name in [first, *(n for n, to in self._state.ties.items() if to == first)]])
        raise UsageError(
            f"{self._state.source}: ties {names}, which the result of {self._diff.name} has apart: untie them first"
        )

    def _own(self, name: str) -> str | None:
        """What the model calls a tensor of the result; None if it has none of its names."""
        naming = self.view.naming
        names = [naming.view.get(name), naming.called(name), name]
        return next((own for own in names if own is not None and own in self._state.tensors), None)

    def _info(self, target: str) -> TensorInfo:
        return self._records[target].info if target in self._records else self.view.info(target)

    def _change(self, own: str, target: str) -> Change:
        """What comes into a tensor of the model; what is wrong with its base or its result is noted."""
        record = self._records.get(target)
        if record is None:
            return _rewritten(self._state.words(own), np.array(self.view.words(target)))  # its source may change, too
        source = self.view.own.get(target) if record.base == record.info else None
        in_place = source is not None and self._state.ties.get(source, source) == own
        if in_place and self._known and not record.position_coding.every_word:
            return _joined(record.moved(self.view.reference(record.name)), record)
        if in_place and not record.position_coding.every_word:
            parts = ((start + moved, before[moved], words[moved]) for start, before, words, moved in self._seen(record))
            return _joined(parts, record)
        whole, infinite = np.empty(record.info.words, record.info.dtype.word), 0
        for start, before, words, moved in self._seen(record):
            whole[start : start + words.size] = words
            infinite += _made_infinite(before[moved], words[moved], record)
        return _rewritten(self._state.words(own), whole, infinite)

    def _seen(self, record: TensorDiff) -> Iterator[tuple[int, Words, Words, Positions]]:
        """A result tensor block by block, checked: (first word, reference, result, which of these words differ)."""
        reference = self.view.reference(record.name)
        source = self.view.word_source(record.name) if record.base is not None else None
        hasher = PairHasher(source)
        for start, before, words in record.applied(reference.source):
            if not self._known:
                hasher.update(start, words, before if reference.unconverted else None)
            yield start, before, words, np.flatnonzero(before != words)
        if self._known:
            return
        digest, base_digest = hasher.digests(record.info.words)
        recorded_base, recorded = self._diff.digests(record.name)
        if base_digest is not None and recorded_base != base_digest[:DIGEST_BYTES]:
            self._wrong_base.append(record.name)
        elif recorded is not None and digest is not None and recorded != digest[:DIGEST_BYTES]:
            self._wrong_result.append(record.name)

    def _check_bases(self) -> None:
        for name, record in self._records.items():
            if record.base is not None and name in self.view.own:
                digest = self._state.digest(self.view.own[name])[:DIGEST_BYTES]
                if digest != self._diff.digests(name)[0]:
                    self._wrong_base.append(name)

    def _refuse_wrong(self) -> None:
        """Raise `WrongBaseError` or `ResultMismatchError` for what was found to be wrong."""
        if self._wrong_base:
            wrong = sorted(self._wrong_base)
            raise WrongBaseError(
                f"{self._state.source}: not the base of {self._diff.name}: these tensors differ: "
                f"{listed([printable(name) for name in wrong])} [A1]",
                tuple(wrong),
            )
        if self._wrong_result:
            which = listed([printable(name) for name in sorted(self._wrong_result)])
            raise ResultMismatchError(f"{self._diff.name}: applying it gives other bits than recorded: {which} [A6]")


def _made_infinite(before: Words, words: Words, record: TensorDiff) -> int:
    if record.exact:
        return 0
    return int(np.count_nonzero(overflow.made_infinite(before, words, record.info.dtype)))


def _joined(parts: Iterator[_Part], record: TensorDiff) -> Change:
    """All parts of a tensor's change."""
    positions, words, infinite = [np.empty(0, np.int64)], [np.empty(0, record.info.dtype.word)], 0
    for where, before, after in parts:
        positions.append(where)
        words.append(after)
        infinite += _made_infinite(before, after, record)
    return Change(np.concatenate(positions), np.concatenate(words), infinite)


def _rewritten(present: Words, whole: Words, infinite: int = 0) -> Change:
    """What makes the present words of a tensor others; all of them, if most are."""
    different = np.flatnonzero(present != whole)
    if 2 * different.size > whole.size:
        return Change(None, whole, infinite)
    return Change(different, whole[different], infinite)
