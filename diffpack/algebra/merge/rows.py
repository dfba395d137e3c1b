"""Vocabularies of different sizes: the union of their rows.

Rows of the base are merged by the method. A row beyond them comes from the diffs that have it: from one as it is, from
several as their average by weight, unless their tokenizers say that it is another token in each. What a diff with
fewer rows than the base has is what it has; of the others it says nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from math import fsum, prod

import numpy as np

from diffpack.algebra.delta import Delta
from diffpack.algebra.delta_source import Source
from diffpack.algebra.merge.combine import NO_WEIGHT, Combined, combine
from diffpack.algebra.merge.heads import way_out
from diffpack.algebra.merge.labels import new_tokens
from diffpack.algebra.merge.structure import Wishes
from diffpack.checkpoints import Checkpoint
from diffpack.errors import UsageError
from diffpack.support.names import printable
from diffpack.tensors.info import TensorInfo

_VOCABULARY = re.compile(r"(^|[._])(\w*emb\w*|wte|shared|lm_head|predictions|\w*vocab\w*)([._]|$)", re.IGNORECASE)
"""Names of embeddings and language model heads, whose rows are tokens (or positions)."""
Infos = Sequence[tuple[TensorInfo, TensorInfo | None]]


def vocabularies(names: Sequence[str], sources: Sequence[Source]) -> dict[str, TensorInfo]:
    """Find the tensors whose union of rows is to be made -> what they become.

    They have other numbers of rows than the base, are otherwise alike, and are called as embeddings are, or have in
    each diff as many rows as one that is.
    """
    infos = {
        name: {at: source.infos(name) for at, source in enumerate(sources) if source.brings(name)} for name in names
    }
    grown = {name: found for name, found in infos.items() if _alike(list(found.values()))}
    anchors = [_rows(found) for name, found in grown.items() if _VOCABULARY.search(name)]
    return {
        name: _united(list(found.values()))
        for name, found in grown.items()
        if _VOCABULARY.search(name) or _rows(found) in anchors
    }


def _alike(infos: Infos) -> bool:
    """Whether tensors differ in their rows alone, and some have other rows than the base."""
    kept = {before for _, before in infos}
    before = next(iter(kept))
    if before is None or len(kept) != 1 or not before.shape:
        return False
    kinds = {(info.dtype, len(info.shape), info.shape[1:]) for info, _ in infos}
    alike = kinds == {(infos[0][0].dtype, len(before.shape), before.shape[1:])} and infos[0][0].dtype.arithmetic
    return alike and any(info.shape != before.shape for info, _ in infos)


def _rows(found: Mapping[int, tuple[TensorInfo, TensorInfo | None]]) -> dict[int, int]:
    """The rows a tensor has in each diff that brings it, and (under -1) in the base."""
    (_, before), *_ = found.values()
    assert before is not None  # `_alike`
    return {at: info.shape[0] for at, (info, _) in found.items()} | {-1: before.shape[0]}


def _united(infos: Infos) -> TensorInfo:
    info, before = infos[0]
    assert before is not None  # `_alike`
    return replace(info, shape=(max(before.shape[0], *(own.shape[0] for own, _ in infos)), *info.shape[1:]))


def check_tokens(
    unions: Mapping[str, TensorInfo], sources: Sequence[Source], base: Checkpoint | None, wishes: Wishes
) -> None:
    """Raise `UsageError` if a new row is one token in a diff and another in the next, as far as their files tell."""
    for name in sorted(unions):
        having = [source for source in sources if source.brings(name)]
        before = having[0].infos(name)[1]
        if before is None or len(having) < 2 or wishes.mixes(name):
            continue
        seen: dict[int, tuple[str, str]] = {}
        for source in having:
            rows = source.infos(name)[0].shape[0]
            for number, word in sorted(new_tokens(source.diff, base, before.shape[0]).items()):
                first, other = seen.setdefault(number, (word, source.diff.name))
                if first != word and number < rows:
                    raise UsageError(
                        f"{printable(name)}: row {number} is {printable(first)} in {other}, {printable(word)} in "
                        f"{source.diff.name}: {way_out([name], sources)}, mix (--mix) averages them all the same"
                    )


def merged_rows(
    info: TensorInfo,
    before: TensorInfo,
    deltas: Sequence[Delta],
    weights: Sequence[float],
    merge: Callable[[Sequence[Delta]], Iterator[Combined]],
) -> Iterator[Combined]:
    """Merge deltas of different rows to one of `info`'s; `merge` merges the rows of the base.

    `deltas` has one for each diff, a diff that does not speak of the tensor has one of the base's shape.
    """
    width, kept = prod(info.shape[1:]), before.shape[0]
    yield from merge([replace(_cut(delta, 0, kept * width), shape=before.shape) for delta in deltas])
    ends = sorted({kept, *(delta.shape[0] for delta in deltas if delta.shape[0] > kept)})
    for first, last in pairwise(ends):
        having = [at for at, delta in enumerate(deltas) if delta.shape[0] >= last]
        parts = [_cut(deltas[at], first * width, last * width) for at in having]
        shares = averaging([weights[at] for at in having])
        for item in combine(parts, shares, elect=None, normalize=True, scale=1.0):
            block = item.block
            places = None if block.positions is None else block.positions + first * width
            moved = replace(block, start=block.start + first * width, stop=block.stop + first * width, positions=places)
            yield replace(item, block=moved)


def averaging(weights: Sequence[float]) -> list[float]:
    """The weights of an average; equal ones where there is one number, or they add up to nothing."""
    return list(weights) if len(weights) > 1 and abs(fsum(weights)) >= NO_WEIGHT else [1.0] * len(weights)


def _cut(delta: Delta, start: int, stop: int) -> Delta:
    """A delta's entries [start, stop), counted from there; what it lacks of them does not change."""
    if delta.positions is None:
        values = delta.values[start:stop]
        missing = np.zeros(stop - start - values.size, values.dtype)
        return Delta((stop - start,), None, np.concatenate([values, missing]))
    low, high = np.searchsorted(delta.positions, [start, stop])
    return Delta((stop - start,), delta.positions[low:high] - start, delta.values[low:high])
