"""Diffs one after the other, with the base where it is at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from diffpack.algebra.trace import Lineage, Trace
from diffpack.checkpoints import Checkpoint
from diffpack.diff.diff import Diff
from diffpack.diff.record import TensorDiff
from diffpack.errors import BaseNeededError
from diffpack.support.cache import Cache
from diffpack.support.names import printable
from diffpack.tensors.dtypes import Words
from diffpack.tensors.info import TensorInfo
from diffpack.tensors.reference import Reference
from diffpack.tensors.rename import own_names

_KEPT_BYTES = 256 << 20  # computed tensors kept: each link's chunks ask for those of the link before


class Chain:
    """Diffs one after the other, with the base where it is at hand."""

    def __init__(self, diffs: Sequence[Diff], state: Trace, base: Checkpoint | None = None) -> None:
        self.diffs = diffs
        self.base = base
        self._own = own_names(base.tensors, state.rename) if base is not None else {}
        self._before = state.before
        self._computed: Cache[Lineage, Words] = Cache(lambda words: words.nbytes, _KEPT_BYTES)
        self._records: list[Mapping[str, TensorDiff]] = list(diffs)
        if base is not None:
            self._records = [diff.bound(partial(self._reference, link)) for link, diff in enumerate(diffs)]

    def record(self, key: tuple[int, str]) -> TensorDiff:
        """A record by its link and name."""
        return self._records[key[0]][key[1]]

    def _reference(self, link: int, name: str) -> Reference:
        record = self.diffs[link][name]
        words = None if record.base is None else self.words(self._before[link, name])
        return Reference(record.info, record.base, words)

    def info(self, lineage: Lineage) -> TensorInfo:
        """A tensor's dtype and shape. Raises `BaseNeededError` for a base tensor that no record tells them of."""
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
            return self._computed.get(lineage, partial(self._compute, lineage))
        if self.base is None:
            raise BaseNeededError(f"{printable(lineage.origin or '')}: computing it needs the base")
        return self.base.words(self._own[lineage.origin or ""])

    def _compute(self, lineage: Lineage) -> Words:
        record = self.record(lineage.records[-1])
        before = None if record.base is None else self.words(Lineage(lineage.origin, lineage.records[:-1]))
        result = np.empty(record.info.words, record.info.dtype.word)
        for start, _, words in record.applied(Reference(record.info, record.base, before)):
            result[start : start + words.size] = words
        return result

    def base_tensor(self, name: str) -> tuple[TensorInfo, Words] | None:
        """The base tensor of a name, as renamed by the chain, if the base has one."""
        if self.base is None or name not in self._own:
            return None
        return self.base.info(self._own[name]), self.base.words(self._own[name])
