"""One record from the records of a lineage: steps added up, moved into the last shape; else computed from the base."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import numpy as np

from diffpack.algebra.steps import add_up, gathered, moved
from diffpack.algebra.trace import Lineage, Trace
from diffpack.checkpoints import Checkpoint
from diffpack.diff.changes import Changes
from diffpack.diff.diff import Diff
from diffpack.diff.entries import Entry, between
from diffpack.diff.record import TensorDiff
from diffpack.errors import BaseNeededError
from diffpack.format.values import exact
from diffpack.support.names import printable
from diffpack.tensors.blocks import blocks
from diffpack.tensors.dtypes import Words, unordered
from diffpack.tensors.info import TensorInfo
from diffpack.tensors.reference import Reference, convert
from diffpack.tensors.rename import base_view

Layer = Iterable[Changes]
_KEPT_BYTES = 256 << 20  # computed tensors kept for the links after


class Chain:
    """Diffs one after the other, with the base where it is at hand."""

    def __init__(self, diffs: Sequence[Diff], state: Trace, base: Checkpoint | None = None) -> None:
        self.diffs = diffs
        self.base = base
        self._own = base_view(base.tensors, state.rename) if base is not None else {}
        self._before = state.before
        self._computed: OrderedDict[Lineage, Words] = OrderedDict()
        self._lock = threading.Lock()
        self._records: list[Mapping[str, TensorDiff]] = list(diffs)
        if base is not None:
            self._records = [diff.bound(partial(self._reference, link)) for link, diff in enumerate(diffs)]

    def record(self, key: tuple[int, str]) -> TensorDiff:
        """Give a record by its link and name."""
        return self._records[key[0]][key[1]]

    def _reference(self, link: int, name: str) -> Reference:
        record = self.diffs[link][name]
        words = None if record.base is None else self.words(self._before[link, name])
        return Reference(record.info, record.base, words)

    def info(self, lineage: Lineage) -> TensorInfo:
        """Give dtype and shape. Raises `BaseNeededError` for a base tensor that no record tells them of."""
        if lineage.records:
            return self.record(lineage.records[-1]).info
        return self._base_info(lineage)

    def _base_info(self, lineage: Lineage) -> TensorInfo:
        if self.base is None:
            raise BaseNeededError(f"{printable(lineage.origin or '')}: tied, then changed or removed: give the base")
        return self.base.info(self._own[lineage.origin or ""])

    def words(self, lineage: Lineage) -> Words:
        """Compute a tensor; takes its memory. Needs the base if the lineage has an origin."""
        if lineage.records:
            found = self._computed.get(lineage)
            if found is None:
                found = self._next(self.record(lineage.records[-1]), lineage)
                self._remember(lineage, found)
            return found
        if self.base is None:
            raise BaseNeededError(f"{printable(lineage.origin or '')}: computing it needs the base")
        return self.base.words(self._own[lineage.origin or ""])

    def _remember(self, lineage: Lineage, words: Words) -> None:
        """Keep the tensors computed last: each link's chunks ask for those of the link before."""
        with self._lock:
            self._computed[lineage] = words
            while len(self._computed) > 1 and sum(kept.nbytes for kept in self._computed.values()) > _KEPT_BYTES:
                self._computed.popitem(last=False)

    def _next(self, record: TensorDiff, lineage: Lineage) -> Words:
        before = None if record.base is None else self.words(Lineage(lineage.origin, lineage.records[:-1]))
        reference = Reference(record.info, record.base, before)
        result = np.empty(record.info.words, record.info.dtype.word)
        for part in record.changes():
            for start, stop in blocks(part.stop, part.start):
                block = reference.slice(start, stop).copy()
                index, numbers = part.within(start, stop)
                block[index] = exact.add(block[index], numbers, record.info.dtype)
                result[start:stop] = block
        return result

    def base_tensor(self, name: str) -> tuple[TensorInfo, Words] | None:
        """Give the base tensor of a name, as renamed by the chain, if the base has one."""
        if self.base is None or name not in self._own:
            return None
        return self.base.info(self._own[name]), self.base.words(self._own[name])


def squash(chain: Chain, name: str, lineage: Lineage) -> Entry:
    """Give the one record that leads from the base to a tensor.

    Works on the records alone where it can. Otherwise computes the tensor from the base, or raises `BaseNeededError`
    saying why it would have to.
    """
    if lineage.origin in (None, name) and lineage.records:
        try:
            return _from_records(chain, name, lineage)
        except BaseNeededError:
            if chain.base is None:
                raise
    elif chain.base is None:
        raise BaseNeededError(
            f"{printable(name)}: was {printable(lineage.origin or '')}, which is another tensor now: give the base"
        )
    return between(name, chain.info(lineage), chain.words(lineage), chain.base_tensor(name))


def _from_records(chain: Chain, name: str, lineage: Lineage) -> Entry:
    first, *rest = [chain.record(key) for key in lineage.records]
    info, base = first.info, first.base
    layers: list[Layer] = [first.changes()]
    for record in rest:
        if record.base != record.info:
            layers = [_reshaped(name, base, info, record.info, layers)]
            info = record.info
        layers.append(record.changes())
    parts = tuple(add_up(layers, info.dtype))
    (link, start), (last, end) = lineage.records[0], lineage.records[-1]
    base_digest = chain.diffs[link].digests(start)[0]
    return Entry(name, info, base, base_digest, chain.diffs[last].digests(end)[1], parts)


def _reshaped(
    name: str, base: TensorInfo | None, info: TensorInfo, new: TensorInfo, layers: Sequence[Layer]
) -> list[Changes]:
    """Give the changes of a tensor after it was rounded to another dtype or brought into another shape.

    `base` is what the record began with (None: zero bits, so that the changes are all there is).
    """
    changes: Iterable[Changes] = add_up(layers, info.dtype)
    where = printable(name)
    if new.dtype != info.dtype:
        places, steps = gathered(changes, info.dtype)
        if base is not None and (places.size or base.dtype != info.dtype):
            raise BaseNeededError(
                f"{where}: changed before it became {new.dtype.name}: give the base, which is rounded too"
            )
        if places.size:
            rounded = convert(unordered(steps, info.dtype), info.dtype, new.dtype)
            steps = exact.encode(np.zeros_like(rounded), rounded, new.dtype)
        changes = [Changes(0, info.words, places, steps.astype(new.dtype.step, copy=False))] if info.words else []
        info = TensorInfo(new.dtype, info.shape)
    if new.shape == info.shape:
        return list(changes)
    if base is not None and _cut_short(base.shape, info.shape, new.shape):
        raise BaseNeededError(f"{where}: cut to {list(info.shape)} before it became {list(new.shape)}: give the base")
    return moved(changes, info, new)


def _cut_short(base: Sequence[int], between: Sequence[int], new: Sequence[int]) -> bool:
    """Tell whether entries of the base that would stand in the new shape were lost on the way."""
    return any(min(a, b, c) < min(a, c) for a, b, c in zip(base, between, new, strict=True))
