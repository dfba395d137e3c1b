"""From chunks back to the changes of one record: positions and numbers, span by span."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import numpy.typing as npt

from diffpack.diff.factor_decoder import FactorDecoder
from diffpack.errors import CorruptFileError
from diffpack.format.factors.predicted import Predicted
from diffpack.format.factors.product import Factors
from diffpack.format.manifest import Group
from diffpack.format.positions import POSITION_CODINGS
from diffpack.format.positions.coding import Decoded, Line, Span
from diffpack.format.streams import Numbers
from diffpack.format.values.exact import EXACT
from diffpack.support.cache import KEPT_BYTES, Cache
from diffpack.tensors.dtypes import Positions
from diffpack.tensors.reference import Reference

_SAFE_SCALE = 2.0**100  # any number of scaled values times it is finite


@dataclass(frozen=True)
class Changes:
    """The changes in the words [start, stop) of one tensor; `positions` None means every word."""

    start: int
    stop: int
    positions: Positions | None
    numbers: Numbers

    def within(self, start: int, stop: int) -> tuple[Positions | slice, Numbers]:
        """The changes in [start, stop) as an index relative to `start`, and their numbers."""
        if self.positions is None:
            return slice(None), self.numbers[start - self.start : stop - self.start]
        low, high = np.searchsorted(self.positions, [start, stop])
        return self.positions[low:high] - start, self.numbers[low:high]

    def nonzero(self) -> Changes:
        """The same changes without numbers that are zero, and with positions."""
        kept = np.flatnonzero(self.numbers)
        if self.positions is not None and kept.size == self.numbers.size:
            return self
        positions = kept + self.start if self.positions is None else self.positions[kept]
        return Changes(self.start, self.stop, positions, self.numbers[kept])


class GroupDecoder:
    """Decodes one group. `first_chunk` is where its chunks begin; `chunk` decodes one. Thread-safe.

    `chunks` are all of them: the scales where values have some, `factor_chunks`, `span_chunks`. Of decoded
    spans, and of factors, the last `kept_bytes` are kept, and at least one.
    """

    def __init__(
        self,
        group: Group,
        first_chunk: int,
        chunk: Callable[[int], list[Numbers]],
        where: str,
        references: Callable[[str], Reference] | None = None,
        kept_bytes: int = KEPT_BYTES,
    ) -> None:
        self.group = group
        self.line = Line(group, where, references, kept_bytes)
        self.position_coding = POSITION_CODINGS[group.position_coding_id]
        self.value_coding = self.line.value_coding
        self._chunk = chunk
        first = first_chunk + (self.value_coding.scaled or group.factors is not None)
        self._factors = None if group.factors is None else FactorDecoder(group.factors, first, chunk, where, kept_bytes)
        self.factor_chunks = range(first, first) if self._factors is None else self._factors.chunks
        self.span_chunks = range(self.factor_chunks.stop, self.factor_chunks.stop + len(group.ends))
        self.chunks = range(first_chunk, self.span_chunks.stop)
        self._decoded: Cache[int, Decoded] = Cache(_nbytes, kept_bytes)

    def bound(self, references: Callable[[str], Reference]) -> GroupDecoder:
        """The same with access to references."""
        return GroupDecoder(self.group, self.chunks.start, self._chunk, self.line.where, references)

    def __len__(self) -> int:
        """How many records the group has."""
        return len(self.group.names)

    def scale(self, record: int) -> np.float32:
        """The scale of a record (0 unless its values have one). Raises `CorruptFileError`."""
        if not self.value_coding.scaled:
            return np.float32(0)
        return np.float32(self._scales[record])

    def factors(self, record: int) -> Factors | None:
        """The low-rank factors of a record, None if its group has none. Raises `CorruptFileError`."""
        if self._factors is None:
            return None
        scales, weights = self._scale_streams[1:]
        name = self.group.names[record]
        return self._factors.of(record, np.float32(scales.view("<f4")[record]), weights, name)

    def changes(self, record: int, together: int = 1) -> Iterator[Changes]:
        """The changes of a record, or of several `together` from that one on, as of one tensor, span by span.

        Together the spans cover all of it. Raises `CorruptFileError` if a chunk breaks a rule.
        """
        start, stop = self.line.starts[record], self.line.starts[record + together]
        ends = self.group.ends
        index = bisect_right(ends, start)
        begin = start
        while begin < stop:
            end = min(stop, ends[index])
            positions, numbers = self.decoded(index)
            if positions is None:
                first, _ = self._bounds(index)
                yield Changes(begin - start, end - start, None, numbers[begin - first : end - first])
            else:
                low, high = np.searchsorted(positions, [begin, end])
                yield Changes(begin - start, end - start, positions[low:high] - start, numbers[low:high])
            begin, index = end, index + 1

    def counts(self) -> list[int]:
        """How many words of each record have a number that is not zero, or of gaps any: all spans are looked at once.

        Raises `CorruptFileError`; `BaseNeededError` if spans are coded against the base.
        """
        starts = np.array(self.line.starts)
        found = np.zeros(len(self), np.int64)
        for index, stop in enumerate(self.group.ends):
            start, _ = self._bounds(index)
            positions, numbers = self.decoded(index)
            if positions is None:
                positions = start + np.flatnonzero(numbers)
            first = int(starts.searchsorted(start, side="right")) - 1
            last = int(starts.searchsorted(stop))
            found[first:last] += np.diff(positions.searchsorted(starts[first : last + 1]))
        counted: list[int] = found.tolist()
        return counted

    def shares(self, record: int) -> Iterator[tuple[int, float]]:
        """Each chunk with words of a record, and which part of the chunk's words they are; then those with its factors.

        A chunk of these counts by its numbers.
        """
        start, stop = self.line.starts[record], self.line.starts[record + 1]
        index = bisect_right(self.group.ends, start)
        while start < stop:
            first, end = self._bounds(index)
            yield self.span_chunks[index], (min(stop, end) - start) / (end - first)
            start, index = end, index + 1
        if self._factors is not None:
            yield from self._factors.shares(record)

    def decoded(self, index: int) -> Decoded:
        """Decode one span: positions on the line (None for all of them) and numbers, most recent ones cached."""
        return self._decoded.get(index, partial(self._decode, index))

    def check(self, index: int) -> None:
        """Check one span as far as that needs no base, unless the base is there. Raises `CorruptFileError`."""
        if self.position_coding.checked_apart and self.line.references is None:
            streams, span = self._chunk(self.span_chunks[index]), self._span(index)
            if not self.position_coding.check_without_base(streams, span):
                self._check_largest(streams, span)
                return
            if self.predicts:
                self.position_coding.decode(streams, span)  # what its numbers are steps from, the base tells
                return
        self.decoded(index)

    def _predicted(self, record: int) -> Predicted:
        """The predicted reference of a record, with the base at hand."""
        factors, references = self.factors(record), self.line.references
        assert factors is not None
        assert references is not None
        return Predicted(references(self.group.names[record]), factors)

    @property
    def predicts(self) -> bool:
        """Whether its factors predict what exact values are steps from."""
        return self._factors is not None and self.value_coding.exact

    def check_factors(self) -> None:
        """Check all factors of the group, if it has any. Raises `CorruptFileError`."""
        for record in range(len(self)):
            self.factors(record)

    def _bounds(self, index: int) -> tuple[int, int]:
        ends = self.group.ends
        return (ends[index - 1] if index else 0), ends[index]

    def _span(self, index: int) -> Span:
        return Span(self.line, *self._bounds(index), f"{self.line.where}: chunk {self.span_chunks[index]}")

    def _decode(self, index: int) -> Decoded:
        span, streams = self._span(index), self._chunk(self.span_chunks[index])
        if self.predicts:
            return self._from_prediction(streams, span)
        decoded = self.position_coding.decode(streams, span)
        if self.value_coding.scaled:
            self._check_products(decoded, span)
        return decoded

    def _from_prediction(self, streams: list[Numbers], span: Span) -> Decoded:
        """Decode a span of steps from predicted words; give the steps from the reference to the same result."""
        reference = span.reference()
        parts = [self._predicted(record).slice(first, last) for record, first, last in span.parts()]
        predicted = np.concatenate(parts)
        positions, numbers = self.position_coding.decode(streams, replace(span, predicted=predicted))
        steps = EXACT.encode(reference, predicted, self.line.dtype)
        if positions is None:
            steps += numbers
        else:
            steps[positions - span.start] += numbers
        return None, steps

    def _check_largest(self, streams: list[Numbers], span: Span) -> None:
        """Check that no number of a span that is not decoded, times any scale of the group, may be too large."""
        if not self.value_coding.scaled:
            return
        largest = max((int(np.abs(part.astype(np.int64)).max(initial=0)) for part in streams), default=0)
        with np.errstate(over="ignore"):
            if not np.isfinite(
                np.float32((largest + 1) * self.value_coding.units) * self._scales.max(initial=np.float32(0))
            ):
                raise CorruptFileError(f"{span.where}: a value times a scale is not finite", "V3")

    def _check_products(self, decoded: Decoded, span: Span) -> None:
        """Check that numbers times their record's scale are finite."""
        scales = self._scales
        if float(scales.max(initial=0)) <= _SAFE_SCALE:
            return
        positions, numbers = decoded
        words = np.arange(span.start, span.stop) if positions is None else positions
        records = np.searchsorted(self.line.starts, words, side="right") - 1
        with np.errstate(over="ignore"):
            if not np.isfinite(numbers.astype(np.float32) * scales[records]).all():
                raise CorruptFileError(f"{span.where}: a value times its scale is not finite", "V3")

    @cached_property
    def _scales(self) -> npt.NDArray[np.float32]:
        """The scale of each record of a group that has them. Raises `CorruptFileError`."""
        scales: npt.NDArray[np.float32] = self._scale_streams[0].view("<f4")
        return scales

    @cached_property
    def _scale_streams(self) -> list[Numbers]:
        """The streams of the first chunk of a group with scales, checked. Raises `CorruptFileError` (V4, U3)."""
        where = f"{self.line.where}: chunk {self.chunks.start}"
        streams = self._chunk(self.chunks.start)
        if self._factors is not None:
            self._factors.check_scales(streams, where, alone=self.predicts)
        if self.predicts:
            return streams
        if (self._factors is None and len(streams) != 1) or not _one_each(streams[0], len(self)):
            raise CorruptFileError(f"{where}: not one u32 scale for each record", "V4")
        scales = streams[0].view("<f4")
        if not np.isfinite(scales).all() or (scales < 0).any():
            raise CorruptFileError(f"{where}: a scale that is negative or not finite", "V4")
        return streams


def _one_each(stream: Numbers, records: int) -> bool:
    return stream.dtype == np.uint32 and stream.size == records


def _nbytes(decoded: Decoded) -> int:
    return decoded[1].nbytes + (decoded[0].nbytes if decoded[0] is not None else 0)


def decoders(
    groups: Sequence[Group],
    chunk: Callable[[int], list[Numbers]],
    where: str,
    references: Callable[[str], Reference] | None = None,
    kept_bytes: int = KEPT_BYTES,
) -> list[GroupDecoder]:
    """Make the decoder of each group; their chunks follow one another from chunk 0."""
    made: list[GroupDecoder] = []
    first = 0
    for group in groups:
        made.append(GroupDecoder(group, first, chunk, where, references, kept_bytes))
        first = made[-1].chunks.stop
    return made
