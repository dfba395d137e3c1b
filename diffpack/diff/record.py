"""TensorDiff: what a diff says about one tensor, decoded when it is looked at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from diffpack.diff.changes import Changes, float_values
from diffpack.diff.group_decoder import GroupDecoder
from diffpack.errors import MissingDependencyError
from diffpack.format.positions.gaps import Positions
from diffpack.format.streams import Numbers
from diffpack.tensors.dtypes import DTYPES
from diffpack.tensors.info import TensorInfo

if TYPE_CHECKING:
    import scipy.sparse

BASE_CODED = frozenset({"classes", "levels", "rule"})
"""Position codings that may need the base's bits to be decoded."""


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
        self.coding = (group.positions, group.values)

    def _base_info(self) -> TensorInfo | None:
        group = self._decoder.group
        if group.base is None:
            return None
        return TensorInfo(DTYPES[group.base], group.resized.get(self.name, self.info.shape))

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
        return self.coding[1] == "exact"

    @property
    def scale(self) -> np.float32:
        """The scale of int8 values, a 256th of the step of grid values (0 for other codings)."""
        return self._decoder.scale(self._record)

    def changes(self) -> Iterator[Changes]:
        """Give the changes span by span, in bounded memory.

        Raises `CorruptFileError`; `BaseNeededError` if they are coded against the base (see `Diff.against`).
        """
        return self._decoder.changes(self._record)

    @property
    def positions(self) -> Positions:
        """Sorted flat positions of stored changes, int64, in words (C order)."""
        parts = [self._stored(part)[0] for part in self.changes()]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def _stored(self, part: Changes) -> tuple[Positions, Numbers]:
        """Give positions and numbers of a part; a word that its class leaves unchanged is not stored."""
        if part.positions is not None:
            return part.positions, part.numbers
        if self.coding[0] in BASE_CODED:
            places = np.flatnonzero(part.numbers)
            return places + part.start, part.numbers[places]
        return np.arange(part.start, part.stop, dtype=np.int64), part.numbers

    @property
    def values(self) -> npt.NDArray[Any]:
        """What changes there: steps (signed integers as wide as a word) if exact, else float32 differences."""
        numbers = [self._stored(part)[1] for part in self.changes()]
        if self.exact:
            return np.concatenate(numbers) if numbers else np.empty(0, self.info.dtype.step)
        parts = [float_values(part, self.coding[1], self.scale) for part in numbers]
        return np.concatenate(parts) if parts else np.empty(0, np.float32)

    @property
    def count(self) -> int:
        """How many words really change (steps of 0 in an `all` coding do not count)."""
        counts = self._decoder.group.counts
        if counts is not None and self.coding[0] in BASE_CODED and self.coding[1] != "grid":  # else they mean nothing
            return counts[self._record]
        if self.coding[0] == "gaps":
            return sum(part.numbers.size for part in self.changes())
        return sum(int(np.count_nonzero(part.numbers)) for part in self.changes())

    def to_scipy(self) -> scipy.sparse.coo_array:
        """Give the values as a sparse array of the tensor's 2-D shape: (1, n) for up to one dimension, else
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
        """Give the values as a dense array of the tensor's shape (flat, in words, if those are not entries)."""
        values = self.values
        flat = np.zeros(self.info.words, values.dtype)
        flat[self.positions] = values
        return flat.reshape(self.shape) if self.info.dtype.bits == self.info.dtype.word_bits else flat

    def __repr__(self) -> str:
        return f"TensorDiff({self.name!r}, {self.kind}, {self.info}, {'/'.join(self.coding)})"
