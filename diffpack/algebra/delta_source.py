"""Diffs as float changes of tensors, as merging, comparing and rebasing want them."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from diffpack.algebra.delta import Delta, Values
from diffpack.algebra.shared_names import SharedNames
from diffpack.checkpoints import Checkpoint
from diffpack.diff.diff import Diff
from diffpack.diff.group_decoder import Changes
from diffpack.diff.record import TensorDiff
from diffpack.errors import BaseNeededError, UsageError
from diffpack.format.values import floats
from diffpack.format.values.exact import EXACT
from diffpack.format.values.summed import SUMMED
from diffpack.result.result import Result
from diffpack.support.names import printable
from diffpack.tensors.dtypes import Positions, to_float
from diffpack.tensors.info import TensorInfo
from diffpack.tensors.reference import Reference, comparable
from diffpack.tensors.rename import own_names


class Source:
    """A diff that is worked on, with the base where it is at hand.

    `names` leads from the names that several diffs share to this one's own; without it they are the same. Every method
    takes and gives shared names.
    """

    def __init__(self, diff: Diff, base: Checkpoint | None, names: SharedNames | None = None) -> None:
        self.diff = diff
        self._base = base
        self._view = {} if base is None else own_names(base.tensors, diff.manifest.rename)
        self._own = None if names is None else names.own
        shared = {} if names is None else names.shared()
        manifest = diff.manifest
        self.stored = tuple(shared.get(name, name) for name in diff)
        self.aliases = {shared.get(a, a): shared.get(b, b) for a, b in manifest.aliases.items()}
        self.removed = tuple(shared.get(name, name) for name in manifest.removed)
        self._stored = frozenset(self.stored)

    def own(self, name: str) -> str:
        """What the diff itself calls a tensor."""
        return name if self._own is None else self._own.get(name, name)

    @property
    def based(self) -> bool:
        """Whether the base is at hand."""
        return self._base is not None

    @cached_property
    def _result(self) -> Result:
        assert self._base is not None
        return Result(self.diff, self._base)

    def stores(self, name: str) -> bool:
        """Whether the diff has a record of a tensor."""
        return name in self._stored

    def record(self, name: str) -> TensorDiff:
        """A record, which can be decoded if the base is at hand or not needed."""
        return self.diff[self.own(name)] if self._base is None else self._result.records[self.own(name)]

    def digests(self, name: str) -> tuple[bytes | None, bytes | None]:
        """The digests of a record's base tensor and result tensor, where recorded."""
        return self.diff.digests(self.own(name))

    def brings(self, name: str) -> bool:
        """Whether the diff says something of a tensor other than that it is removed."""
        return name in self._stored or name in self.aliases

    def infos(self, name: str) -> tuple[TensorInfo, TensorInfo | None]:
        """The tensor's dtype and shape in the result, and in the base as the reference (None: zero bits)."""
        if name in self._stored:
            record = self.diff[self.own(name)]
            return record.info, record.base
        info = self._needed(name).tensors[self.own(name)]
        before = self._base_info(name)
        return info, before if before is not None and comparable(before, info) else None

    def _base_info(self, name: str) -> TensorInfo | None:
        own = self._view.get(self.own(name))
        return None if self._base is None or own is None else self._base.info(own)

    def _needed(self, name: str) -> Result:
        if self._base is None:
            raise BaseNeededError(
                f"{self.diff.name}: {printable(name)} is tied there and not in every diff: give the base"
            )
        return self._result

    def reference(self, name: str, info: TensorInfo, before: TensorInfo | None) -> Reference | None:
        """What a tensor's changes are relative to; None if that needs a base which is not there."""
        if before is None:
            return Reference(info)
        return (
            None if self._base is None else Reference(info, before, self._base.word_source(self._view[self.own(name)]))
        )

    def delta(self, name: str) -> Delta:
        """The float change of a tensor of an arithmetic dtype: float32, float64 for F64.

        Raises `BaseNeededError` for exact values without the base, `UsageError` for differences that are not finite.
        """
        delta = self.change(name)
        if not np.isfinite(delta.values).all():
            raise UsageError(
                f"{self.diff.name}: {printable(name)} has differences that are not finite: it cannot be merged"
            )
        return delta

    def change(self, name: str) -> Delta:
        """The same, finite or not. Raises `BaseNeededError`."""
        info, before = self.infos(name)
        reference = self.reference(name, info, before)
        return self._from_record(name, reference) if name in self._stored else self._from_alias(name, info, reference)

    def _from_record(self, name: str, reference: Reference | None) -> Delta:
        record = self.record(name)
        dense = record.position_coding.every_word or record.value_coding is SUMMED
        places: list[Positions] = [np.empty(0, np.int64)]
        values: list[Values] = []
        for part in record.changes():
            positions, value = self._values(record, reference, part, dense)
            values.append(value)
            if positions is not None:
                places.append(positions)
        whole = np.concatenate(values) if values else np.empty(0, np.float32)
        return Delta(record.shape, None if dense else np.concatenate(places), whole)

    def _values(
        self, record: TensorDiff, reference: Reference | None, part: Changes, dense: bool
    ) -> tuple[Positions | None, Values]:
        changed = part.nonzero() if part.positions is None and not dense else part  # classes hold zeros too
        places, numbers = changed.positions, changed.numbers
        if not record.exact:
            return places, record.value_coding.differences(numbers, record.scale)
        if reference is None:
            where = f"{self.diff.name}: {printable(record.name)}"
            raise BaseNeededError(f"{where} is stored exactly, as steps: give the base, which makes them floats")
        before = reference.slice(part.start, part.stop) if places is None else reference.at(places)
        return places, floats.change(before, EXACT.change(before, numbers, record.info.dtype), record.info.dtype)

    def _from_alias(self, name: str, info: TensorInfo, reference: Reference | None) -> Delta:
        assert reference is not None  # infos() asked for the base
        parts = [np.empty(0, to_float(np.empty(0, info.dtype.word), info.dtype).dtype)]
        for start, words in self._result.blocks(self.own(name)):
            parts.append(floats.change(reference.slice(start, start + words.size), words, info.dtype))
        return Delta(info.shape, None, np.concatenate(parts))
