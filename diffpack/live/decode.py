"""From a diff to the patch it is in a module: result tensors led to their places, changes to positions and words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from diffpack.checkpoints.torch_tensors import as_tensor
from diffpack.diff.against import BaseView
from diffpack.diff.diff import Diff
from diffpack.diff.record import TensorDiff
from diffpack.errors import UsageError, WrongBaseError
from diffpack.live.live_base import LiveBase
from diffpack.live.patch import Entry, LowRank, Patch
from diffpack.live.places import Place
from diffpack.result import overflow
from diffpack.support.blas import single_threaded_products
from diffpack.support.names import listed, printable
from diffpack.tensors.digests import DIGEST_BYTES, tensor_digest
from diffpack.tensors.dtypes import CONVERTIBLE, DType, Positions, Words
from diffpack.tensors.info import TensorInfo, blocks
from diffpack.tensors.reference import convert
from diffpack.tensors.word_source import WordSource

_WORTH_FACTORS = 0.5
"""Products with both factors, against one with the matrix, up to which factors are kept beside the words."""
_POSITION_BYTES = 4
"""What a position takes beside its word, in all but the largest tensors."""


@dataclass(frozen=True)
class Written:
    """What a tensor becomes: the words at sorted positions, or all of them (None)."""

    positions: Positions | None
    words: Words
    low_rank: LowRank | None = None


def decode(diff: Diff, base: LiveBase) -> Patch:
    """The patch a diff is in the module that holds its base.

    Result tensors go where the module has the base tensor of their name, new ones where it has one of their name and
    shape; those without such a place are `elsewhere`. The diff is not checked to be one of this base (`check_base`).

    Raises `CorruptFileError`; `WrongBaseError` for a base without what the diff needs; `UsageError` where the module
    ties what the result has apart, and where its dtype is not the result's (without the base's `cast`).
    """
    factored = any(group.factors is not None for group in diff.manifest.groups)
    with single_threaded_products() if factored else nullcontext():
        return _Decoding(diff, base).patch()


def check_base(diff: Diff, base: LiveBase) -> BaseView:
    """The base as the diff sees it. Raises `WrongBaseError` if it is not the one the diff was made from.

    A module without files may hold more and less than its files did: then each tensor that changes is told by its
    digest, and a diff that makes tensors of others is refused.
    """
    view = diff.view(base)
    expected = diff.manifest.base.fingerprint
    if expected == base.fingerprint:
        return view
    advice = f"(fingerprint expected {expected}, found {base.fingerprint}) [A1]"
    if not base.live:
        raise WrongBaseError(f"{base.source}: not the base of {diff.name} {advice}")
    wrong = []
    for name, record in diff.items():
        if record.base is None:
            continue
        own = view.own.get(name)
        found = tensor_digest(view.word_source(name))[:DIGEST_BYTES] if own is None else base.digest(own)
        if found != diff.digests(name)[0]:
            wrong.append(name)
    manifest = diff.manifest
    unchecked = [name for name in [*(manifest.copies or {}), *(manifest.slices or {})] if name not in diff]
    unchecked += [name for name, target in manifest.aliases.items() if target not in diff]
    if wrong or unchecked or all(record.base is None for record in diff.values()):
        what = f"these tensors differ: {listed([printable(name) for name in wrong])}" if wrong else "it cannot be told"
        hint = "" if wrong else "; give the switcher the base's files: base=..."
        raise WrongBaseError(f"{base.source}: not the base of {diff.name}: {what} {advice}{hint}", tuple(wrong))
    return view


def tensors_of(diff: Diff, base: LiveBase, names: Iterable[str]) -> dict[str, Tensor]:
    """Result tensors by name, as new tensors in the processor's memory. Raises as `decode` does."""
    decoding = _Decoding(diff, base)
    return {name: decoding.tensor(name) for name in names}


class _Decoding:
    """One diff on its way into a module."""

    def __init__(self, diff: Diff, base: LiveBase) -> None:
        self._diff, self._base = diff, base
        self._view = check_base(diff, base)
        self._records: Mapping[str, TensorDiff] = dict(diff.bound(self._view.reference))
        self._entries: dict[Place, Entry] = {}
        self._made_of: dict[Place, str] = {}
        self._elsewhere: list[str] = []
        self._misfits: list[str] = []
        self._infinite: dict[str, int] = {}

    def patch(self) -> Patch:
        """All of it."""
        manifest = self._diff.manifest
        for name in self._records:
            self._take(name, name)
        for name in [*(manifest.copies or {}), *(manifest.slices or {})]:
            if name not in self._records and name not in manifest.aliases:
                self._take(name, name)
        for name, target in manifest.aliases.items():
            self._take(name, target)
        self._refuse_half_tied()
        notes = (overflow.remark(self._infinite),) if self._infinite else ()
        return Patch(tuple(self._entries.values()), tuple(self._elsewhere), tuple(self._misfits), notes)

    def tensor(self, name: str) -> Tensor:
        """A result tensor, whole."""
        target = self._diff.manifest.aliases.get(name, name)
        info = self._info(target)
        words = np.empty(info.words, info.dtype.word)
        for start, part in self._result(self._records.get(target), target):
            words[start : start + part.size] = part
        return as_tensor(words, info, f"{self._diff.name}: {printable(name)}")

    def _take(self, name: str, target: str) -> None:
        """Lead the result tensor `name`, which is what the diff calls `target`, to its place."""
        info = self._info(target)
        place = self._place(name, info)
        if place is None:
            self._elsewhere.append(name)
            return
        if self._made_of.get(place) == target:
            return  # tied in both
        written = self._written(target, info, place)
        if written is None and place not in self._entries:
            return  # it holds that already
        entry = self._entry(place, target, written)
        if place in self._entries and not self._entries[place].same_as(entry):
            self._refuse_tied(place, [self._made_of[place], name])
        self._entries[place] = entry
        self._made_of[place] = target

    def _info(self, target: str) -> TensorInfo:
        return self._records[target].info if target in self._records else self._view.info(target)

    def _place(self, name: str, info: TensorInfo) -> Place | None:
        """Where a result tensor goes; None where the module has no tensor of its name and shape.

        Raises `UsageError` for a place of another dtype, unless it is to be cast.
        """
        own = self._view.naming.view.get(name)
        place = self._base.place(own) if own is not None else None
        if place is None:
            called = self._view.naming.called(name)
            place = self._base.places.get(self._base.naming.called(called)) or self._base.places.get(name)
        if place is None:
            return None
        if place.words.info.shape != info.shape:
            self._misfits.append(name)
            return None
        there = place.words.info.dtype
        if there != info.dtype and not (self._base.cast and {there.name, info.dtype.name} <= CONVERTIBLE):
            raise UsageError(
                f"{place.words.name} is {there.name}, the result of {self._diff.name} {info.dtype.name}: "
                "load the model in that dtype, or give the switcher cast=True, which rounds results once"
            )
        return place

    def _written(self, target: str, info: TensorInfo, place: Place) -> Written | None:
        """What comes into a place; None if it holds that."""
        record = self._records.get(target)
        source = self._view.own.get(target)  # what the record's reference is, in the base
        in_place = source is not None and self._base.held(source) is place
        if in_place and record is None:
            return None
        if in_place and record is not None and record.base == record.info:
            return self._changes(record, place)
        dtype = place.words.info.dtype
        whole = np.empty(info.words, dtype.word)
        for start, words in self._result(record, target):
            whole[start : start + words.size] = convert(words, info.dtype, dtype)
        if not any(self._base.held(own) is place for own in self._base.names_at(place)):
            return Written(None, whole)  # nothing of the base is there
        different = _different(whole, self._base.module_words(place))
        return self._smallest(different, whole[different], place) if different.size else None

    def _result(self, record: TensorDiff | None, target: str) -> Iterator[tuple[int, Words]]:
        """A result tensor as (first word, words), in order."""
        if record is not None:
            for start, before, words in record.applied(self._view.reference(record.name).source):
                if not record.exact:
                    self._count_infinite(target, before, words, record.info.dtype)
                yield start, words
            return
        source = self._view.word_source(target)
        for start, stop in blocks(source.size):
            yield start, source[start:stop]

    def _changes(self, record: TensorDiff, place: Place) -> Written:
        """What a record changes in the place of its own reference."""
        dtype = record.info.dtype
        positions: list[Positions] = []
        after: list[Words] = []
        for where, before, words in record.moved(self._view.word_source(record.name)):  # in its dtype and shape
            if not record.exact:
                self._count_infinite(record.name, before, words, dtype)
            positions.append(where)
            after.append(words)
        written = convert(_joined(after, dtype.word), dtype, place.words.info.dtype)
        found = self._smallest(_joined(positions, np.dtype(np.int64)), written, place)
        return replace(found, low_rank=_low_rank(record, place)) if record.rank and not record.exact else found

    def _smallest(self, positions: Positions, words: Words, place: Place) -> Written:
        """Changes as they take fewest bytes: at positions, or all words of the place."""
        info = place.words.info
        word = info.dtype.word.itemsize
        if positions.size * (word + _POSITION_BYTES) < info.words * word:
            return Written(positions, words)
        whole = self._base.module_words(place)[0 : info.words]
        whole[positions] = words
        return Written(None, whole)

    def _count_infinite(self, name: str, before: Words, words: Words, dtype: DType) -> None:
        if count := int(np.count_nonzero(overflow.made_infinite(before, words, dtype))):
            self._infinite[name] = self._infinite.get(name, 0) + count

    def _entry(self, place: Place, target: str, written: Written | None) -> Entry:
        """What is written, on the place's device."""
        memory = place.words
        if written is None:
            written = Written(np.empty(0, np.int64), np.empty(0, memory.info.dtype.word))
        index = None if written.positions is None else memory.index(written.positions)
        return Entry(place, target, index, memory.integers(written.words), written.low_rank)

    def _refuse_half_tied(self) -> None:
        """Raise `UsageError` where the module ties tensors of which the result changes one, and not the other.

        Further names of a module that is not just the diff's base may be names the base never had: they follow.
        """
        if self._base.live and self._base.fingerprint != self._diff.manifest.base.fingerprint:
            return
        removed = set(self._diff.manifest.removed)
        aliases = self._diff.manifest.aliases
        called = {own: name for name, own in self._view.naming.view.items()}
        for place, entry in self._entries.items():
            if not entry.words.numel():
                continue
            for own in self._base.names_at(place):
                name = called.get(own, own)
                target = aliases.get(name, name)
                if name not in removed and target != self._made_of[place] and target not in self._records:
                    self._refuse_tied(place, [self._made_of[place], name])

    def _refuse_tied(self, place: Place, names: list[str]) -> None:
        raise UsageError(
            f"{place.words.name} is one tensor in the module (named {listed([printable(n) for n in place.names])}), "
            f"but {printable(names[0])} and {printable(names[1])} differ in the result of {self._diff.name}: "
            "untie them in the module first"
        )


def _low_rank(record: TensorDiff, place: Place) -> LowRank | None:
    """How a matrix is changed by factors; None if it is no matrix, or has too many of them."""
    factors, shape = record.factors, record.info.shape
    if factors is None or len(factors.matrices) != 1 or (factors.rows, factors.columns) != shape:
        return None
    if factors.rank * (factors.rows + factors.columns) > _WORTH_FACTORS * factors.rows * factors.columns:
        return None
    left, right = factors.pairs()[0]
    parts = list(record.beside_factors())
    index = _joined([positions for positions, _ in parts], np.dtype(np.int64))
    added = _joined([differences for _, differences in parts], np.dtype(np.float32))
    device = place.words.device
    numbers = [torch.from_numpy(np.ascontiguousarray(part)).to(device) for part in (left, right, added)]
    return LowRank(numbers[0], numbers[1], place.words.index(index), numbers[2])


def _joined(parts: list[npt.NDArray[Any]], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Parts as one array of their own dtype, which is `dtype` where there are none."""
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.empty(0, dtype)


def _different(whole: Words, held: WordSource) -> Positions:
    """The positions at which words differ from those held."""
    found = [np.flatnonzero(whole[start:stop] != held[start:stop]) + start for start, stop in blocks(whole.size)]
    return np.concatenate(found) if found else np.empty(0, np.int64)
