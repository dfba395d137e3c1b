"""From chunks back to the low-rank factors of a record."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from diffpack.errors import CorruptFileError
from diffpack.format.factors import spans
from diffpack.format.factors.line import INT, FactorLine
from diffpack.format.factors.product import Factors, MatrixFactors
from diffpack.format.manifest import FactorTable
from diffpack.format.streams import Numbers
from diffpack.support.cache import KEPT_BYTES, Cache
from diffpack.support.names import printable


class FactorDecoder:
    """Decodes the factors of one group. `first_chunk` is where those of its line begin. Thread-safe."""

    def __init__(
        self,
        table: FactorTable,
        first_chunk: int,
        chunk: Callable[[int], list[Numbers]],
        where: str,
        kept_bytes: int = KEPT_BYTES,
    ) -> None:
        self.table = table
        self.line = FactorLine(table.matrices)
        self.chunks = range(first_chunk, first_chunk + len(table.ends))
        self._chunk = chunk
        self._where = where
        self._decoded: Cache[int, Numbers] = Cache(lambda numbers: numbers.nbytes, kept_bytes)
        self._made: Cache[int, Factors] = Cache(_made_bytes, kept_bytes)

    def check_scales(self, streams: list[Numbers], where: str, *, alone: bool) -> None:
        """Check the scales and weights of factors in the group's first chunk; `alone` they have no grid beside them.

        Raises `CorruptFileError` (U3).
        """
        if len(streams) != 3:
            raise CorruptFileError(f"{where}: {len(streams)} streams of scales and weights, not 3", "U3")
        grid, scales, weights = streams
        if alone and grid.size:
            raise CorruptFileError(f"{where}: scales of a grid beside exact values", "U3")
        if scales.dtype != np.uint32 or scales.size != len(self.table.matrices):
            raise CorruptFileError(f"{where}: not one u32 scale for the factors of each record", "U3")
        if not np.isfinite(scales.view("<f4")).all():
            raise CorruptFileError(f"{where}: a scale of factors that is not finite", "U3")
        counts = (0, self.line.components[-1]) if self.table.values == INT else (0,)
        if weights.dtype != np.uint16 or weights.size not in counts:
            raise CorruptFileError(f"{where}: not one u16 weight for each component", "U3")

    def of(self, record: int, scale: np.float32, weights: Numbers, name: str) -> Factors:
        """The factors of a record; `weights` are those of all components of the group, or none.

        Raises `CorruptFileError`.
        """
        return self._made.get(record, partial(self._make, record, scale, weights, name))

    def _make(self, record: int, scale: np.float32, weights: Numbers, name: str) -> Factors:
        rows, columns, ranks = self.table.matrices[record]
        factor, component = self.line.records[record], self.line.components[record]
        matrices = []
        for rank in ranks:
            left, right = (
                (self._factor(factor + side).reshape(rank, -1) for side in (0, 1))
                if rank
                else _nothing(rows, columns, self.table.values)
            )
            own = weights[component : component + rank] if weights.size else np.ones(rank, np.uint16)
            matrices.append(MatrixFactors(self.table.values, left, right, own))
            factor, component = factor + 2, component + rank
        made = Factors(rows, columns, scale, tuple(matrices))
        made.check(f"{self._where}: {printable(name)}")
        return made

    def _factor(self, factor: int) -> Numbers:
        """The numbers of one factor of the line."""
        start, stop = self.line.starts[factor], self.line.starts[factor + 1]
        parts = []
        for index in self._spans(start, stop):
            first, last = self._bounds(index)
            numbers = self._decoded.get(index, partial(self._decode, index))
            parts.append(numbers[max(start, first) - first : min(stop, last) - first])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def shares(self, record: int) -> Iterator[tuple[int, float]]:
        """Each chunk with factors of a record, and which part of the chunk's numbers they are."""
        start, stop = (self.line.starts[self.line.records[at]] for at in (record, record + 1))
        for index in self._spans(start, stop):
            first, last = self._bounds(index)
            yield self.chunks[index], (min(stop, last) - max(start, first)) / (last - first)

    def _spans(self, start: int, stop: int) -> range:
        ends = self.table.ends
        return range(bisect_right(ends, start), bisect_right(ends, stop - 1) + 1) if stop > start else range(0)

    def _bounds(self, index: int) -> tuple[int, int]:
        ends = self.table.ends
        return (ends[index - 1] if index else 0), ends[index]

    def _decode(self, index: int) -> Numbers:
        at = self.chunks[index]
        where = f"{self._where}: chunk {at}"
        return spans.decode(self._chunk(at), self.line, *self._bounds(index), self.table.values, where)


def _made_bytes(factors: Factors) -> int:
    return 4 * factors.nbytes  # with what they are multiplied as


def _nothing(rows: int, columns: int, values: str) -> tuple[Numbers, Numbers]:
    kind = spans.stream_dtype(values)
    return np.empty((0, rows), kind), np.empty((0, columns), kind)
