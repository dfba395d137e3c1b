"""What becomes of each tensor in a merge: merged, averaged, taken over from the one diff that has it, tied, removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from diffpack.algebra.delta import Delta
from diffpack.algebra.delta_source import Source
from diffpack.algebra.merge.combine import Combined, combine
from diffpack.algebra.merge.method import Method, Settings
from diffpack.algebra.merge.methods.average import METHOD as AVERAGE
from diffpack.algebra.missed import Missed
from diffpack.algebra.steps import gathered
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
class Structure:
    """What a merge says besides values: tensors stored, tied, gone."""

    stored: tuple[str, ...]
    aliases: dict[str, str]
    removed: tuple[str, ...]


def structure(sources: Sequence[Source]) -> Structure:
    """Decide which tensors are stored: a tensor is removed, or tied to another, if it is in every diff."""
    removed = set.intersection(*(set(source.removed) for source in sources))
    tied = set.intersection(*(set(source.aliases.items()) for source in sources))
    aliases = dict(sorted(tied))
    names = {name for source in sources for name in [*source.stored, *source.aliases]}
    return Structure(tuple(sorted(names - set(aliases))), aliases, tuple(sorted(removed)))


def merge_tensor(
    name: str,
    sources: Sequence[Source],
    method: Method,
    settings: Settings,
    values: ValueCoding,
    sums: Sums,
    missed: Missed,
) -> Merged:
    """Merge one tensor; `sums` and `missed` watch its result where the base is at hand.

    Raises `UsageError` if the diffs cannot be brought together.
    """
    bringing = [at for at, source in enumerate(sources) if source.brings(name)]
    infos = [sources[at].infos(name) for at in bringing]
    if len(set(infos)) > 1:
        said = " and ".join(sorted({str(info) for info, _ in infos}))
        raise UsageError(f"{printable(name)}: the diffs make it {said}, which cannot be merged")
    info, before = infos[0]
    taken = [sources[at] for at in bringing]
    digests = {source.digests(name)[0] for source in taken if source.stores(name)}
    if len(digests) > 1:
        raise UsageError(f"{printable(name)}: what the diffs change is not one tensor of the base")
    if not info.dtype.arithmetic or (before is None and len(taken) == 1 and taken[0].stores(name)):
        return Merged(_taken_over(name, taken))
    if before is None:  # a new tensor has no base to add to: the diffs that bring it are averaged
        method, settings = AVERAGE, Settings(tuple(settings.weights[at] for at in bringing))
        deltas = [source.delta(name) for source in taken]
    else:
        nothing = Delta(info.shape, np.empty(0, np.int64), np.empty(0, np.float32))
        deltas = [source.delta(name) if source in taken else nothing for source in sources]
    kept, weights = method.prepare(name, deltas, settings)
    normalize = method.normalize if settings.normalize is None else settings.normalize
    combined = list(combine(kept, weights, elect=method.elect, normalize=normalize, scale=settings.scale))
    digest = next(iter(digests), None)
    merged = _coded(Entry(name, info, before, digest, None, (), values), combined, clip=sums.clip)
    reference = taken[0].reference(name, info, before)
    if reference is None:
        return merged
    entry = sums.entry(merged.entry, reference)
    missed.measure(entry, [(item.block.start, item.block.positions, item.values) for item in combined], reference)
    return replace(merged, entry=entry)


def _taken_over(name: str, sources: Sequence[Source]) -> Entry:
    """The record of a tensor that is not merged: of one diff, or the same in all that have it."""
    first, *others = (_record_entry(name, source) for source in sources)
    for other in others:
        if not _same(first, other):
            kind = first.info.dtype.name
            raise UsageError(
                f"{printable(name)}: {kind} tensors are not merged, and the diffs give it different values"
            )
    return first


def _record_entry(name: str, source: Source) -> Entry:
    if not source.stores(name):
        raise UsageError(
            f"{source.diff.name}: {printable(name)} is tied there and not in every diff: it cannot be merged"
        )
    record = source.record(name)
    base_digest, digest = source.digests(name)
    parts = tuple(record.changes())
    return Entry(name, record.info, record.base, base_digest, digest, parts, record.value_coding, record.scale)


def _same(first: Entry, other: Entry) -> bool:
    if first.value_coding is not other.value_coding:
        return False
    pairs = zip(*(gathered(entry.parts, entry.info.dtype) for entry in (first, other)), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


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


def changed_infos(source: Source) -> dict[str, tuple[TensorInfo, TensorInfo | None]]:
    """The records that change a tensor's dtype or shape, or bring a new one."""
    infos = {name: source.infos(name) for name in source.stored}
    return {name: (info, before) for name, (info, before) in infos.items() if before != info}
