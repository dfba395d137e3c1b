"""One record from the records of a lineage: steps added up, moved into the last shape; else computed from the base."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from diffpack.algebra.chain import Chain
from diffpack.algebra.steps import add_up, gathered, moved
from diffpack.algebra.trace import Lineage
from diffpack.diff.entries import Entry, exact_entry
from diffpack.diff.group_decoder import Changes
from diffpack.errors import BaseNeededError
from diffpack.format.values.exact import EXACT
from diffpack.support.names import printable
from diffpack.tensors.dtypes import unordered
from diffpack.tensors.info import TensorInfo
from diffpack.tensors.reference import convert

Layer = Iterable[Changes]


def squash(chain: Chain, name: str, lineage: Lineage) -> Entry:
    """The one record that leads from the base to a tensor.

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
    return exact_entry(name, chain.info(lineage), chain.words(lineage), chain.base_tensor(name))


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
    """The changes of a tensor after it was rounded to another dtype or brought into another shape.

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
            steps = EXACT.encode(np.zeros_like(rounded), rounded, new.dtype)
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
