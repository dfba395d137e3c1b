"""One tensor of a merge: merged, averaged, or taken over from the one diff that has it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from diffpack.algebra.delta import Delta
from diffpack.algebra.delta_source import Source
from diffpack.algebra.merge.choices import Choices
from diffpack.algebra.merge.combine import Combined, combine
from diffpack.algebra.merge.heads import Heads, way_out
from diffpack.algebra.merge.method import Method
from diffpack.algebra.merge.per_tensor import Layers
from diffpack.algebra.merge.records import record_entry, same_change
from diffpack.algebra.merge.rows import averaging, merged_rows
from diffpack.algebra.merge.structure import Structure
from diffpack.algebra.missed import Missed
from diffpack.algebra.sums import Sums
from diffpack.diff.entries import Entry
from diffpack.diff.group_decoder import Changes
from diffpack.errors import UsageError
from diffpack.format.values import ValueCoding
from diffpack.format.values.floats import Added
from diffpack.format.values.int8 import INT8
from diffpack.result.overflow import largest_finite
from diffpack.support.names import printable
from diffpack.tensors.dtypes import DTYPES
from diffpack.tensors.info import TensorInfo


@dataclass(frozen=True)
class Merged:
    """One merged record, and at how many places diffs met: `shared` by two or more, `conflicts` of sign."""

    entry: Entry
    shared: int = 0
    conflicts: int = 0


@dataclass(frozen=True)
class Merger:
    """Merges tensors, one by one: how, and what is known of each.

    `sums` and `missed` watch results where the base is at hand.
    """

    sources: Sequence[Source]
    method: Method
    choices: Choices
    layers: Layers | None
    plan: Structure
    heads: Heads
    unions: Mapping[str, TensorInfo]
    values: ValueCoding
    sums: Sums
    missed: Missed

    def merged(self, name: str) -> Merged:
        """Merge one tensor. Raises `UsageError` if the diffs cannot be brought together."""
        if name in self.plan.taken:
            return Merged(record_entry(name, self.sources[self.plan.taken[name]]))
        taken = [source for source in self.sources if source.brings(name)]
        digests = {source.digests(name)[0] for source in taken if source.stores(name)}
        if len(digests) > 1:
            raise UsageError(f"{printable(name)}: what the diffs change is not one tensor of the base")
        info, before = taken[0].infos(name)
        if name in self.heads.same:
            return Merged(record_entry(name, taken[0]))
        alone = self._own(name, info, before) and len(taken) == 1 and taken[0].stores(name)
        if alone or not info.dtype.arithmetic:
            return Merged(self._taken_over(name, taken))
        info = self.unions.get(name, info)
        combined = list(self._combined(name, info, before, taken))
        digest = next(iter(digests), None)
        merged = _coded(Entry(name, info, before, digest, None, (), self.values), combined, clip=self.sums.clip)
        reference = taken[0].reference(name, info, before)
        if reference is None:
            return merged
        entry = self.sums.entry(merged.entry, reference)
        wanted = [(item.block.start, item.block.positions, item.values) for item in combined]
        self.missed.measure(entry, wanted, reference)
        return replace(merged, entry=entry)

    def _combined(
        self, name: str, info: TensorInfo, before: TensorInfo | None, taken: Sequence[Source]
    ) -> Iterator[Combined]:
        """The merged values of a tensor of floats."""
        settings = self.choices.of(name, self.layers)
        weights = settings[0].weights
        if before is None or self._own(name, info, before):  # the base says nothing: those that bring it are averaged
            shares = averaging(
                [weight for weight, source in zip(weights, self.sources, strict=True) if source in taken]
            )
            deltas = [source.delta(name) for source in taken]
            return combine(deltas, shares, elect=None, normalize=True, scale=1.0)
        nothing = Delta(before.shape, np.empty(0, np.int64), np.empty(0, np.float32))
        deltas = [source.delta(name) if source in taken else nothing for source in self.sources]
        known = info if name not in self.unions else TensorInfo(info.dtype, before.shape)
        reference = taken[0].reference(name, known, before)

        def merge(parts: Sequence[Delta]) -> Iterator[Combined]:
            return self.method.merge(name, parts, settings, reference)

        return merge(deltas) if name not in self.unions else merged_rows(info, before, deltas, weights, merge)

    def _own(self, name: str, info: TensorInfo, before: TensorInfo | None) -> bool:
        """Whether a tensor is new, or of another shape than the base's and no vocabulary."""
        return before is None or (before.shape != info.shape and name not in self.unions)

    def _taken_over(self, name: str, sources: Sequence[Source]) -> Entry:
        """The record of a tensor that is not merged: of one diff, or the same in all that have it."""
        first, *others = (record_entry(name, source) for source in sources)
        for other in others:
            if not same_change(first, other):
                kind = first.info.dtype.name
                raise UsageError(
                    f"{printable(name)}: {kind} tensors are not merged, and the diffs give it different values: "
                    f"{way_out([name], self.sources)}"
                )
        return first


def _coded(entry: Entry, combined: Sequence[Combined], *, clip: bool) -> Merged:
    """Code merged values; one that rounds to zero changes nothing and is not stored.

    With `clip` values end at float32's largest finite number; without it those beyond raise `UsageError`.
    """
    if clip:
        combined = [replace(item, values=np.clip(item.values, -_LARGEST, _LARGEST)) for item in combined]
    for item in combined:
        with np.errstate(over="ignore"):
            finite = np.isfinite(item.values.astype(np.float32)).all()
        if not finite:
            raise UsageError(f"{printable(entry.name)}: merged values beyond float32")
    if entry.value_coding.scaled:
        entry = replace(entry, scale=_scale(combined))
    parts = tuple(_part(item, entry) for item in combined)
    counts = (sum(item.shared for item in combined), sum(item.conflicts for item in combined))
    return Merged(replace(entry, parts=parts), *counts)


def _scale(combined: Sequence[Combined]) -> np.float32:
    """Fit an int8 scale: a power of two, so that the tensors of a model share few scales."""
    values = np.concatenate([item.values for item in combined]) if combined else np.empty(0)
    values = values[values != 0]
    return INT8.snap(1.0, values[:: max(1, values.size // _SAMPLE)])


_LARGEST = largest_finite(DTYPES["F32"])
_SAMPLE = 1 << 16  # values a tensor's int8 scale is fitted to, as extract does


def _part(item: Combined, entry: Entry) -> Changes:
    block = item.block
    coding = entry.value_coding
    assert isinstance(coding, Added)  # merged values are floats
    numbers = coding.numbers(item.values.astype(np.float32), entry.scale)
    if not np.isfinite(coding.differences(numbers, entry.scale)).all():
        raise UsageError(f"{printable(entry.name)}: merged values beyond {coding.id}: choose f32")
    numbers = np.where(coding.effective(numbers), numbers, numbers.dtype.type(0))  # -0.0 is not 0 on the line
    if block.positions is None:
        return Changes(block.start, block.stop, None, numbers)
    kept = numbers != 0
    return Changes(block.start, block.stop, block.positions[kept], numbers[kept])
