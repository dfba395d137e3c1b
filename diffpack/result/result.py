"""The result of a diff on a base, tensor by tensor and block by block: what apply, load and verify share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate

import numpy as np

from diffpack.checkpoints import Checkpoint
from diffpack.checkpoints.base import Place, digests_of
from diffpack.checkpoints.joined_words import joined
from diffpack.diff.diff import Diff, files_behind
from diffpack.diff.extent import find_extent
from diffpack.errors import CorruptFileError, WrongBaseError
from diffpack.format.hdf5_structure import check_tensors
from diffpack.result import overflow
from diffpack.support.blas import single_threaded_products
from diffpack.support.inputs import Inputs
from diffpack.support.names import listed, printable
from diffpack.support.parallel import run_all
from diffpack.tensors.digests import DIGEST_BYTES, PairHasher, combine, tensor_digest
from diffpack.tensors.dtypes import Words
from diffpack.tensors.info import TensorInfo, blocks, parts_of
from diffpack.tensors.info import runs as cut_in_runs

Write = Callable[[Words, Sequence[Place]], None]
"""Takes words of result tensors, and where which of them belong."""


@dataclass(frozen=True)
class Check:
    """What a run found: fingerprints (None where they were not computed, or of a part) and result tensors that differ.

    `infinite` counts, by tensor, the entries that lossy values make infinite although the reference is finite.
    `digests` (32 bytes) are those of the result's tensors.
    """

    base: str | None
    result: str | None
    wrong: tuple[str, ...] = ()
    infinite: Mapping[str, int] = field(default_factory=dict)
    digests: Mapping[str, bytes] = field(default_factory=dict)


class Result:
    """A diff bound to a base.

    `tensors` are the result's, in the base's order, new ones after them; `untold` is what of the tuned files
    neither the diff nor the base tells, found when the output is opened. `extent` says what of a base in memory is the
    diff's base: of a part, the result is that of what is there. Raises `WrongBaseError` if a tensor the diff needs is
    missing or has another dtype or shape, and with `verify` if a part of a base cannot be checked. With `partial` the
    result lacks what a model in memory lacks of what changes.
    """

    def __init__(
        self, diff: Diff, base: Checkpoint, *, verify: bool = True, partial: bool = False, threads: int | None = None
    ) -> None:
        self.diff = diff
        self.base = base
        self._inputs = Inputs(files_behind([diff], base))
        self.view = diff.view(base, partial=partial)
        self.records = diff.bound(self.view.reference)
        self.extent = find_extent(diff, self.view, verify=verify, threads=threads)
        self.untold: list[str] = []
        manifest = diff.manifest
        removed = set(manifest.removed)
        self.tensors: dict[str, TensorInfo] = {}
        for name in self.view:
            if name not in removed and self.view.own.get(name) not in self.extent.extra:
                self.tensors[name] = self._info(name)
        for name in [*diff, *manifest.aliases]:
            if name not in self.tensors and name not in self.view.lacking:
                self.tensors[name] = self._info(name)
        whole = self.extent.whole
        if whole and manifest.structure is not None and manifest.structure.content is not None:
            check_tensors(manifest.structure.content, self.tensors, diff.name)
        total, of_base = (sum(info.nbytes for info in tensors.values()) for tensors in (self.tensors, base.tensors))
        diff.check_result_size(total, of_base)

    def _info(self, name: str) -> TensorInfo:
        target = self.diff.manifest.aliases.get(name, name)
        if target in self.diff:
            return self.diff[target].info
        if target not in self.view:
            raise CorruptFileError(f"{self.diff.name}: the alias {name!r} leads to no tensor", "A5")
        return self.view.info(target)

    @property
    def ties(self) -> dict[str, str]:
        """Further names of one tensor, each with the first: the diff's aliases, and what stays tied as in the base."""
        aliases = self.diff.manifest.aliases
        first: dict[str, str] = {}
        ties = {}
        for name, own in self.view.own.items():
            if name in self.tensors and name not in self.diff and name not in aliases:  # unchanged
                found = first.setdefault(self.base.ties.get(own, own), name)
                if found != name:
                    ties[name] = found
        return ties | aliases

    def blocks(self, name: str) -> Iterator[tuple[int, Words]]:
        """A result tensor as (first word, words), in order. Raises `CorruptFileError`."""
        for start, _, words in self._blocks([name]):
            yield start, words

    def _blocks(self, run: Sequence[str]) -> Iterator[tuple[int, Words, Words]]:
        """The tensors of a run as one line of words: (first word, reference, result) block by block."""
        target = self.diff.manifest.aliases.get(run[0], run[0])
        if target in self.diff:
            names = [target] if len(run) == 1 else run
            references = joined([self.view.reference(name).source for name in names])
            yield from self.records[target].applied(references, len(run))
        else:
            words = joined([self.view.word_source(name) for name in (run if len(run) > 1 else [target])])
            for start, stop in blocks(words.size):
                block = words[start:stop]
                yield start, block, block

    def run(
        self, write: Write | None, *, verify: bool = True, threads: int | None = None,
        done: Callable[[int], None] | None = None,
    ) -> Check:  # fmt: skip
        """Produce every result tensor once, hand its blocks to `write`, and check base and result.

        With `verify` false only the base tensors the diff touches are checked. `done` is told the bytes of each
        finished tensor. Raises `WrongBaseError`, and `CheckpointError` if the files behind it changed meanwhile; the
        result's fingerprint is the caller's to compare.
        """
        factored = any(group.factors is not None for group in self.diff.manifest.groups)
        with self._inputs.unchanged(), single_threaded_products() if factored else nullcontext():
            return self._run(write, verify, threads, done)

    def _run(self, write: Write | None, verify: bool, threads: int | None, done: Callable[[int], None] | None) -> Check:
        aliases = self.diff.manifest.aliases if write is None else {}  # what is not written is made once
        order = [run for run in self._runs() if run[0] not in aliases]
        try:
            runs = run_all([partial(self._produce, names, write, verify, done) for names in order], threads)
        except CorruptFileError:  # chunks coded against the base do not fit another one
            self._refuse_other_base(threads)
            raise
        produced = {item.name: item for run in runs for item in run}
        for name, target in aliases.items():
            if name in self.tensors:
                produced[name] = produced[target].tied()
                if done is not None:
                    done(self.tensors[name].nbytes)
        before = {name: item.base_digest for name, item in produced.items() if item.base_digest is not None}
        infinite = {name: item.infinite for name, item in produced.items() if item.infinite}
        if not verify:
            self._compare_base(before, None)
            return Check(None, None, infinite=infinite)
        of_result = {name: item.digest for name, item in produced.items() if item.digest is not None}
        if not self.extent.whole:
            self._compare_base(before, None)
            return Check(None, None, self._wrong_results(of_result), infinite, of_result)
        own = {self.view.own[name]: digest for name, digest in before.items() if name in self.view.own}
        own |= digests_of(self.base, (name for name in self.extent.names if name not in own), threads)
        whole = self.extent.fingerprint(self.base.tensors, own)
        self._compare_base(before, whole)
        return Check(whole, combine(self.tensors, of_result), self._wrong_results(of_result), infinite, of_result)

    def _wrong_results(self, digests: dict[str, bytes]) -> tuple[str, ...]:
        """Name the records whose result is not the recorded one."""
        recorded = {name: self.diff.digests(name)[1] for name in self.diff if name in digests}
        return tuple(name for name, digest in recorded.items() if digest and digests[name][:DIGEST_BYTES] != digest)

    def _runs(self) -> list[list[str]]:
        """The tensors' names in runs to be made together, and so that each chunk is decoded once.

        Those of a run are neighbours on a group's line, or unchanged; small ones, unless there is but one.
        """
        found: list[list[str]] = []
        changed: set[str] = set()
        for group in self.diff.manifest.groups:
            names = [name for name in group.names if name in self.tensors]
            changed.update(names)
            if len(names) < len(group.names) or self.diff[group.names[0]].apart:
                found += ([name] for name in names)
            else:
                found += (names[run] for run in cut_in_runs(self.tensors[name] for name in names))
        rest = [name for name in self.tensors if name not in changed]
        same = [name for name in rest if name not in self.diff.manifest.aliases]
        others = [same[run] for run in cut_in_runs(self.tensors[name] for name in same)]
        others += ([name] for name in rest if name in self.diff.manifest.aliases)
        others.sort(key=lambda run: (-sum(self.tensors[name].nbytes for name in run), run[0]))
        return found + others

    def _refuse_other_base(self, threads: int | None) -> None:
        digests = digests_of(self.base, self.base.tensors, threads)
        before = {
            name: digests[self.view.own[name]] if name in self.view.own else tensor_digest(self.view.word_source(name))
            for name in self.diff
            if name in self.view
        }
        whole = self.extent.fingerprint(self.base.tensors, digests) if self.extent.whole else None
        self._compare_base(before, whole)

    def _produce(
        self, run: Sequence[str], write: Write | None, verify: bool, done: Callable[[int], None] | None
    ) -> list[_Produced]:
        """Produce the tensors of a run; say what was found."""
        made = [_Produced(self, name, verify=verify) for name in run]
        line = list(accumulate((item.info.words for item in made), initial=0))
        for start, before, words in self._blocks(run):
            places = []
            for at, first, stop in parts_of(line, start, start + words.size):
                own = slice(first - start, stop - start)
                made[at].see(first - line[at], before[own], words[own])
                places.append(Place(run[at], (first - line[at]) * words.itemsize, own.start, own.stop))
            if write is not None:
                write(words, places)
        for item in made:
            item.finish()
            if done is not None:
                done(item.info.nbytes)
        return made

    def _compare_base(self, digests: dict[str, bytes], whole: str | None) -> None:
        """Raise `WrongBaseError` if touched base tensors, or the base as a whole, are not the recorded ones.

        `digests` are those of what the records change, by the diff's names.
        """
        expected = self.diff.manifest.base.fingerprint
        wrong = []
        for name in self.diff:
            recorded, _ = self.diff.digests(name)
            if name not in self.view.lacking and recorded is not None and digests[name][:DIGEST_BYTES] != recorded:
                wrong.append(name)
        if not wrong and whole in (None, expected):
            return
        if whole == expected:
            which = listed([printable(name) for name in wrong])
            raise CorruptFileError(f"{self.diff.name}: records other digests than its base has: {which}", "A1")
        actual = f", found {whole}" if whole else ""
        which = (
            f"these tensors differ: {listed([printable(name) for name in wrong])}"
            if wrong
            else "only tensors this diff does not touch differ"
        )
        if len(self.extent.names) != self.diff.manifest.base.tensors:
            which += f"; it has {len(self.base.tensors)} tensors, not {self.diff.manifest.base.tensors}"
        raise WrongBaseError(
            f"{self.base.source}: not the base of {self.diff.name}: {which} "
            f"(fingerprint expected {expected}{actual}) [A1]",
            tuple(wrong),
        )


class _Produced:
    """What is found out about a result tensor as it is made.

    `digest` is its own, `base_digest` that of the base tensor of its name if it was read, `infinite` counts the entries
    that became so.
    """

    def __init__(self, result: Result, name: str, *, verify: bool) -> None:
        self.name = name
        self.info = result.tensors[name]
        self.digest: bytes | None = None
        self.base_digest: bytes | None = None
        self.infinite = 0
        record = result.diff.get(name)
        touched = record is not None and record.base is not None
        self._lossy = record is not None and not record.exact
        self._unchanged = record is None and name in result.view and name not in result.diff.manifest.aliases
        self._unconverted = touched and result.view.reference(name).unconverted
        self._hasher = PairHasher(result.view.word_source(name) if touched else None, own=verify)

    def see(self, start: int, before: Words, words: Words) -> None:
        """Take words from `start` on, and the reference's."""
        self._hasher.update(start, words, before if self._unconverted else None)
        if self._lossy:
            self.infinite += int(np.count_nonzero(overflow.made_infinite(before, words, self.info.dtype)))

    def finish(self) -> None:
        """Take the digests, after all words."""
        self.digest, self.base_digest = self._hasher.digests(self.info.words)
        if self._unchanged:
            self.base_digest = self.digest
        del self._hasher  # two kilobytes, of which there may be a hundred thousand

    def tied(self) -> _Produced:
        """The same for a further name of the tensor, under which the base was not read."""
        other = copy(self)
        other.base_digest = None
        return other
