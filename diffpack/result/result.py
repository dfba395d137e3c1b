"""The result of a diff on a base, tensor by tensor and block by block: what apply, load and verify share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from diffpack.checkpoints import Checkpoint
from diffpack.checkpoints.base import digests_of
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
from diffpack.tensors.info import TensorInfo, blocks

Write = Callable[[str, int, Words], None]
"""Takes a tensor's name, a byte offset in it, and the words that belong there."""
_MOST_BYTES = 1 << 48
"""No checkpoint is larger: hashing it would take a day. A few bytes of a forged file can claim any size."""


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
        total = sum(info.nbytes for info in self.tensors.values())
        if total > _MOST_BYTES:
            raise CorruptFileError(f"{diff.name}: a result of {total:,} bytes fits no machine", "F8")

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
        target = self.diff.manifest.aliases.get(name, name)
        if target in self.diff:
            yield from self.records[target].applied(self.view.reference(target))
        else:
            words = self.view.word_source(target)
            for start, stop in blocks(words.size):
                yield start, words[start:stop]

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
        names = self._order()
        try:
            produced = run_all([partial(self._produce, name, write, verify, done) for name in names], threads)
        except CorruptFileError:  # chunks coded against the base do not fit another one
            self._refuse_other_base(threads)
            raise
        digests = {name: digest for name, (digest, _, _) in zip(names, produced, strict=True)}
        before = {name: base for name, (_, base, _) in zip(names, produced, strict=True) if base}
        infinite = {name: count for name, (_, _, count) in zip(names, produced, strict=True) if count}
        if not verify:
            self._compare_base(before, None)
            return Check(None, None, infinite=infinite)
        of_result = {name: digest for name, digest in digests.items() if digest is not None}
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

    def _order(self) -> list[str]:
        """The tensors' names so that neighbours on a line follow one another: each chunk is decoded once."""
        changed = [name for group in self.diff.manifest.groups for name in group.names if name in self.tensors]
        rest = sorted(set(self.tensors) - set(changed), key=lambda name: (-self.tensors[name].nbytes, name))
        return changed + rest

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
        self, name: str, write: Write | None, verify: bool, done: Callable[[int], None] | None
    ) -> tuple[bytes | None, bytes | None, int]:
        """Produce one tensor; give its digest, that of the base tensor of its name if it was read, new infinities."""
        record = self.diff.get(name)
        touched = record is not None and record.base is not None
        base_words = self.view.word_source(name) if touched else None
        hasher = PairHasher(base_words, own=verify)
        sums = None if record is None or record.exact else self.view.reference(name)
        infinite = 0
        for start, words in self.blocks(name):
            hasher.update(start, words)
            if sums is not None:
                before = sums.slice(start, start + words.size)
                infinite += int(np.count_nonzero(overflow.made_infinite(before, words, sums.info.dtype)))
            if write is not None:
                write(name, start * words.itemsize, words)
        info = self.tensors[name]
        if done is not None:
            done(info.nbytes)
        digest, base_digest = hasher.digests(info.words)
        if base_digest is not None:
            return digest, base_digest, infinite
        unchanged = name in self.view and record is None and name not in self.diff.manifest.aliases
        return digest, digest if unchanged else None, infinite

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
