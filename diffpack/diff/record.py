"""TensorDiff: what a diff says about one tensor, decoded when it is looked at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from diffpack.diff.differences import Differences, given_reference, only
from diffpack.diff.group_decoder import Changes, GroupDecoder
from diffpack.errors import BaseNeededError, CheckpointError, CorruptFileError, MissingDependencyError, UsageError
from diffpack.format.factors.product import Factors
from diffpack.format.manifest import DIGEST_HEX
from diffpack.format.streams import Numbers
from diffpack.format.values import ValueCoding, floats
from diffpack.format.values.summed import SUMMED
from diffpack.support.names import printable
from diffpack.tensors.dtypes import DTYPES, Positions, Words, fits_array
from diffpack.tensors.info import TensorInfo, blocks
from diffpack.tensors.reference import Reference
from diffpack.tensors.word_source import WordSource

if TYPE_CHECKING:
    import scipy.sparse


class TensorDiff:
    """What a diff says about one tensor.

    `kind` is "changed", "resized", "retyped" or "new". Positions count words: entries for every dtype but
    complex (two words an entry) and those below a byte (words are the packed bytes).
    """

    def __init__(self, decoder: GroupDecoder, record: int) -> None:
        group = decoder.group
        self._decoder = decoder
        self._record = record
        self.name = group.names[record]
        self.info = TensorInfo(DTYPES[group.dtype], group.shapes[record])
        self.base = self._base_info()
        self.position_coding = decoder.position_coding
        summed = group.factors is not None and not decoder.predicts
        self.value_coding: ValueCoding = SUMMED if summed else decoder.value_coding

    def _base_info(self) -> TensorInfo | None:
        group = self._decoder.group
        if group.base_dtype is None:
            return None
        return TensorInfo(DTYPES[group.base_dtype], group.resized.get(self.name, self.info.shape))

    @property
    def dtype(self) -> str:
        """The result tensor's dtype, by its safetensors name."""
        return self.info.dtype.name

    @property
    def shape(self) -> tuple[int, ...]:
        """The result tensor's shape."""
        return self.info.shape

    @property
    def kind(self) -> str:
        """Say "new", "resized", "retyped" or "changed"."""
        if self.base is None:
            return "new"
        if self.base.shape != self.info.shape:
            return "resized"
        return "retyped" if self.base.dtype != self.info.dtype else "changed"

    @property
    def exact(self) -> bool:
        """Whether the values are steps, which give the tuned entries bit for bit."""
        return self.value_coding.exact

    @property
    def coding(self) -> tuple[str, str]:
        """The ids of its codings: of positions, of values."""
        return self.position_coding.id, self.value_coding.id

    @property
    def scale(self) -> np.float32:
        """The scale of int8 values, a 256th of the step of grid values (0 for other codings, and with factors)."""
        return self._decoder.scale(self._record) if self.value_coding is not SUMMED else np.float32(0)

    @property
    def rank(self) -> int:
        """The largest rank of its low-rank factors, 0 without any."""
        table = self._decoder.group.factors
        return max(table.matrices[self._record][2]) if table is not None else 0

    @property
    def factors(self) -> Factors | None:
        """Its low-rank factors, None if it has none: what they come to, and what the grid adds, is what changes.

        Those of an exact record only come near to what changes: they serve to store its steps in fewer bytes.
        Raises `CorruptFileError`.
        """
        return self._decoder.factors(self._record)

    def changes(self) -> Iterator[Changes]:
        """The changes span by span, in bounded memory.

        Raises `CorruptFileError`; `BaseNeededError` if they are coded against the base (see `Diff.against`).
        """
        factors = self.factors if self.value_coding is SUMMED else None
        if factors is None:
            return self._decoder.changes(self._record)
        return self._summed(factors)

    def _summed(self, factors: Factors) -> Iterator[Changes]:
        """The values of every word, what the factors come to and what the grid adds, block by block."""
        grid, scale = self._decoder.value_coding, self._decoder.scale(self._record)
        for part in self._decoder.changes(self._record):
            for start, stop in blocks(part.stop, part.start):
                values = factors.change(start, stop)
                index, units = part.within(start, stop)
                if units.size:
                    with np.errstate(over="ignore"):
                        values[index] += grid.differences(units, scale)
                    if not np.isfinite(values).all():
                        where = f"{self._decoder.line.where}: {printable(self.name)}"
                        raise CorruptFileError(f"{where}: a value that is not finite", "V3")
                yield Changes(start, stop, None, values)

    def beside_factors(self) -> Iterator[tuple[Positions, npt.NDArray[np.float32]]]:
        """What a lossy record adds to what its factors come to: sorted positions and differences, part by part.

        Raises `CorruptFileError`.
        """
        grid, scale = self._decoder.value_coding, self._decoder.scale(self._record)
        for part in self._decoder.changes(self._record):
            added = part.nonzero()
            assert added.positions is not None
            yield added.positions, grid.differences(added.numbers, scale)

    @property
    def apart(self) -> bool:
        """Whether its numbers mean something else than those of its neighbours: they have a scale, or factors."""
        return self._decoder.value_coding.scaled or self._decoder.group.factors is not None

    def applied(self, reference: WordSource, together: int = 1) -> Iterator[tuple[int, Words, Words]]:
        """The result tensor, made of its reference: (first word, reference, result) block by block, in order.

        With `together` that of several records, from this one on, as one line of words; none of them is `apart`.
        Raises `CorruptFileError`, `BaseNeededError`.
        """
        value_coding, dtype, scale = self.value_coding, self.info.dtype, self.scale
        for part in self.changes() if together == 1 else self._decoder.changes(self._record, together):
            for start, stop in blocks(part.stop, part.start):
                before = reference[start:stop]
                block = before
                index, numbers = part.within(start, stop)
                if isinstance(index, slice):
                    block = value_coding.change(before, numbers, dtype, scale)
                elif numbers.size:
                    block = before.copy()
                    block[index] = value_coding.change(before[index], numbers, dtype, scale)
                yield start, before, block

    def moved(self, reference: WordSource) -> Iterator[tuple[Positions, Words, Words]]:
        """What is stored, and no other word: positions, the reference's words there, and what they become.

        Of what is stored for every word only those that become others. Part by part, in order; read from the reference
        are these words alone. Raises `CorruptFileError`, `BaseNeededError`.
        """
        coding, dtype, scale = self.value_coding, self.info.dtype, self.scale
        for part in self.changes():
            if part.positions is not None:
                before = reference[part.positions]
                yield part.positions, before, coding.change(before, part.numbers, dtype, scale)
                continue
            for start, stop in blocks(part.stop, part.start):
                before = reference[start:stop]
                words = coding.change(before, part.within(start, stop)[1], dtype, scale)
                different = np.flatnonzero(before != words)
                yield different + start, before[different], words[different]

    @property
    def positions(self) -> Positions:
        """Sorted flat positions of stored changes, int64, in words (C order)."""
        parts = [self._stored(part)[0] for part in self.changes()]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def _stored(self, part: Changes) -> tuple[Positions, Numbers]:
        """Positions and numbers of a part; a word that its class leaves unchanged is not stored."""
        if part.positions is not None:
            return part.positions, part.numbers
        if self.position_coding.every_word:
            return np.arange(part.start, part.stop, dtype=np.int64), part.numbers
        places = np.flatnonzero(part.numbers)
        return places + part.start, part.numbers[places]

    @property
    def values(self) -> npt.NDArray[Any]:
        """What changes there: steps (signed integers as wide as a word) if exact, else float32 differences."""
        numbers = [self._stored(part)[1] for part in self.changes()]
        if self.exact:
            return np.concatenate(numbers) if numbers else np.empty(0, self.info.dtype.step)
        parts = [self.value_coding.differences(part, self.scale) for part in numbers]
        return np.concatenate(parts) if parts else np.empty(0, np.float32)

    def differences(self, base_words: Any = None) -> Differences:
        """The changes as float differences, float32 (float64 for F64), with their positions, whatever the coding.

        `base_words` is the base tensor: its flat words, as a checkpoint's `words(name)` gives them, or a numpy array or
        torch tensor of its dtype and shape. It is checked by its digest. A new tensor (its differences are its
        entries), lossy values not coded against the base, and records of `Diff.against(base)`, which are not checked,
        need none. Of a resized or retyped tensor they are relative to the reference: the base tensor in the result's
        dtype and shape. Lossy values are those stored, before they are added and rounded.

        Raises `BaseNeededError` without base words that are needed, `WrongBaseError` for others than the base's,
        `UsageError` for integers, bools and other dtypes without float differences (`values` has their steps),
        `CorruptFileError`.
        """
        dtype = self.info.dtype
        if not dtype.arithmetic:
            raise UsageError(f"{printable(self.name)}: {dtype.name} has no float differences; `values` has the steps")
        record, reference = self._with_base(base_words)
        wide = np.float64 if dtype.name == "F64" else np.float32
        places, values = [np.empty(0, np.int64)], [np.empty(0, wide)]
        for part in record.changes():
            positions, numbers = record._stored(part)
            if not self.exact:
                change = self.value_coding.differences(numbers, self.scale)
            elif reference is None:
                raise BaseNeededError(f"{printable(self.name)} is stored as steps: give the base tensor's words")
            else:
                before = reference.at(positions)
                change = floats.change(before, self.value_coding.change(before, numbers, dtype, self.scale), dtype)
            places.append(positions)
            values.append(change.astype(wide, copy=False))
        return Differences(np.concatenate(places), np.concatenate(values))

    def _with_base(self, base_words: Any) -> tuple[TensorDiff, Reference | None]:
        """The record as it can be decoded with the base tensor, and its reference, if that is at hand."""
        references = self._decoder.line.references
        if self.base is None:
            return self, Reference(self.info)
        if base_words is None:
            return self, None if references is None else references(self.name)
        group, first = self._decoder.group, self._record * DIGEST_HEX
        digest = bytes.fromhex((group.base_digests or "")[first : first + DIGEST_HEX])
        reference = given_reference(self.name, self.info, self.base, digest, base_words)
        if references is not None or not self.position_coding.needs_base(group):
            return self, reference
        return TensorDiff(self._decoder.bound(only(self.name, reference)), self._record), reference

    @property
    def count(self) -> int:
        """How many words really change (steps of 0 in an `all` coding do not count); with factors, all its words."""
        if self.value_coding is SUMMED:
            return self.info.words
        counts = self._decoder.group.counts
        if counts is not None and self.position_coding.counted(self.value_coding):  # else they mean nothing
            return counts[self._record]
        return sum(
            int(np.count_nonzero(part.numbers)) if part.positions is None else part.numbers.size
            for part in self.changes()
        )

    def to_scipy(self) -> scipy.sparse.coo_array:
        """The values as a sparse array of the tensor's 2-D shape: (1, n) for up to one dimension, else
        (first dimension, product of the others); in words for complex and sub-byte dtypes, and (1, n) where packed
        rows are no whole words.

        Raises `MissingDependencyError` without scipy.
        """  # noqa: D205 - one sentence
        try:
            from scipy.sparse import coo_array
        except ImportError:
            raise MissingDependencyError("scipy", "scipy", "TensorDiff.to_scipy") from None
        rows = self.shape[0] if len(self.shape) > 1 else 1
        if rows and self.info.words % rows:  # packed entries whose rows do not end with a word
            rows = 1
        columns = self.info.words // rows if rows else 0
        positions = self.positions
        places = np.divmod(positions, columns) if columns else (positions, positions)
        return coo_array((self.values, places), shape=(rows, columns))

    def to_dense(self) -> npt.NDArray[Any]:
        """The values as a dense array of the tensor's shape (flat, in words, if those are not entries).

        Raises `CheckpointError` for a shape that no array can have.
        """
        if not fits_array(self.info.dtype, self.shape):
            raise CheckpointError(f"{printable(self.name)}: no array can have its shape")
        values = self.values
        flat = np.zeros(self.info.words, values.dtype)
        flat[self.positions] = values
        return flat.reshape(self.shape) if self.info.dtype.bits == self.info.dtype.word_bits else flat

    def __repr__(self) -> str:
        return f"TensorDiff({self.name!r}, {self.kind}, {self.info}, {'/'.join(self.coding)})"
