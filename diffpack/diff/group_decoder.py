"""From chunks back to the changes of one record: positions and numbers, span by span."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from diffpack.diff.changes import Changes
from diffpack.diff.rule_positions import Chosen
from diffpack.errors import BaseNeededError, CorruptFileError
from diffpack.format.manifest import Group
from diffpack.format.positions import classes, gaps, levels
from diffpack.format.positions.gaps import Positions
from diffpack.format.streams import Numbers
from diffpack.format.values import SCALED, floats, grid, int8, stream_dtype
from diffpack.support.cache import Recent
from diffpack.tensors.dtypes import Words
from diffpack.tensors.reference import Reference


class GroupDecoder:
    """Decodes one group. `first_chunk` is where its chunks begin; `chunk` decodes one. Thread-safe."""

    def __init__(
        self,
        group: Group,
        first_chunk: int,
        chunk: Callable[[int], list[Numbers]],
        where: str,
        references: Callable[[str], Reference] | None = None,
    ) -> None:
        self.group = group
        self.dtype = group.tensor_dtype
        self._where = where
        self._chunk = chunk
        self._references = references
        self._scaled = group.values in SCALED
        self._first = first_chunk + self._scaled
        self.starts = list(accumulate((self.dtype.words(shape) for shape in group.shapes), initial=0))
        self.chunks = range(first_chunk, self._first + len(group.ends))
        self._spans = Recent(self._decode, _nbytes)
        self._chosen = Chosen(group, where, references) if group.positions == "rule" else None

    def __len__(self) -> int:
        """How many records the group has."""
        return len(self.group.names)

    def scale(self, record: int) -> np.float32:
        """Give the scale of a record (0 unless its values have one). Raises `CorruptFileError`."""
        if not self._scaled:
            return np.float32(0)
        return np.float32(self._scales[record])

    def changes(self, record: int) -> Iterator[Changes]:
        """Give the changes of a record, span by span; together the spans cover the whole tensor.

        Raises `CorruptFileError` if a chunk breaks a rule.
        """
        start, stop = self.starts[record], self.starts[record + 1]
        ends = self.group.ends
        span = bisect_right(ends, start)
        begin = start
        while begin < stop:
            end = min(stop, ends[span])
            positions, numbers = self.span(span)
            if positions is None:
                first, _ = self._bounds(span)
                yield Changes(begin - start, end - start, None, numbers[begin - first : end - first])
            else:
                low, high = np.searchsorted(positions, [begin, end])
                yield Changes(begin - start, end - start, positions[low:high] - start, numbers[low:high])
            begin, span = end, span + 1

    def shares(self, record: int) -> Iterator[tuple[int, float]]:
        """Give each chunk with words of a record, and which part of the chunk's words they are."""
        start, stop = self.starts[record], self.starts[record + 1]
        span = bisect_right(self.group.ends, start)
        while start < stop:
            first, end = self._bounds(span)
            yield self._first + span, (min(stop, end) - start) / (end - first)
            start, span = end, span + 1

    def span(self, span: int) -> tuple[Positions | None, Numbers]:
        """Decode one span: positions on the line (None for all of them) and numbers, most recent ones cached."""
        return self._spans.get(span)

    def _bounds(self, span: int) -> tuple[int, int]:
        ends = self.group.ends
        return (ends[span - 1] if span else 0), ends[span]

    def _decode(self, span: int) -> tuple[Positions | None, Numbers]:
        start, stop = self._bounds(span)
        where = f"{self._where}: chunk {self._first + span}"
        streams = self._chunk(self._first + span)
        if self.group.positions == "classes":
            classes.check(streams, stop - start, self.dtype, where)
            return None, classes.decode(streams, self._span_reference(start, stop), self.dtype, where)
        if self.group.positions == "levels":
            return self._decode_levels(streams, start, stop, where)
        if self._chosen is not None:
            return self._decode_chosen(self._chosen, self._chosen_numbers(streams, where), start, stop, where)
        if len(streams) != (1 if self.group.positions == "all" else 2):
            raise CorruptFileError(f"{where}: {len(streams)} streams", "P2")
        numbers = streams[-1]
        self._check_numbers(numbers, where)
        if self.group.positions == "all":
            if numbers.size != stop - start:
                raise CorruptFileError(f"{where}: {numbers.size} values for {stop - start} words", "P2")
            decoded: tuple[Positions | None, Numbers] = None, numbers
        else:
            if streams[0].size != numbers.size:
                raise CorruptFileError(f"{where}: {streams[0].size} gaps and {numbers.size} values", "P1")
            decoded = gaps.decode(streams[0], start, stop, where), numbers
        self._check_products(decoded, start, stop, where)
        return decoded

    def check(self, span: int) -> None:
        """Check one span as far as that needs no base. Raises `CorruptFileError`."""
        where = f"{self._where}: chunk {self._first + span}"
        if self.group.positions == "classes":
            start, stop = self._bounds(span)
            classes.check(self._chunk(self._first + span), stop - start, self.dtype, where)
        elif self.group.positions == "levels" and self._references is None:
            start, stop = self._bounds(span)
            streams = self._chunk(self._first + span)
            if self._levels(streams, self._geometry(start, stop), where).plan.slope == 0:
                self.span(span)
        elif self._chosen is not None and self._references is None:
            least, most = self._chosen.bounds(self._parts(*self._bounds(span)))
            numbers = self._chosen_numbers(self._chunk(self._first + span), where)
            if not least <= numbers.size <= most:
                raise CorruptFileError(f"{where}: {numbers.size} values, where {least} to {most} are chosen", "W3")
        else:
            self.span(span)

    def _chosen_numbers(self, streams: list[Numbers], where: str) -> Numbers:
        if len(streams) != 1:
            raise CorruptFileError(f"{where}: {len(streams)} streams, not one of values", "W3")
        self._check_numbers(streams[0], where)
        return streams[0]

    def _decode_chosen(
        self, chosen: Chosen, numbers: Numbers, start: int, stop: int, where: str
    ) -> tuple[Positions | None, Numbers]:
        """Give the words that the rule chooses in a span, and their numbers."""
        places = [np.empty(0, np.int64)]
        for record, first, last in self._parts(start, stop):
            places.append(chosen.within(record, first, last) + self.starts[record])
        positions = np.concatenate(places)
        if positions.size != numbers.size:
            raise CorruptFileError(f"{where}: {numbers.size} values for {positions.size} chosen words", "W3")
        self._check_products((positions, numbers), start, stop, where)
        return positions, numbers

    def _levels(self, streams: list[Numbers], geometry: levels.Geometry, where: str) -> levels.Stored:
        """Tell the streams of a span of levels apart, and check them as far as that needs no base."""
        group = self.group
        numbers = stream_dtype(group.values, self.dtype)
        stored = levels.parse(streams, geometry, numbers, group.values == "grid", where)
        conditioned = group.values == "exact" and group.base is not None and self.dtype.arithmetic
        if stored.plan.slope and not conditioned:
            raise CorruptFileError(f"{where}: exponents count where they cannot", "R3")
        return stored

    def _decode_levels(
        self, streams: list[Numbers], start: int, stop: int, where: str
    ) -> tuple[Positions | None, Numbers]:
        """Give the steps of every word, or of grid values the positions that change and their units."""
        geometry = self._geometry(start, stop)
        stored = self._levels(streams, geometry, where)
        exponents = None
        if stored.plan.slope:
            exponents = classes.exponents(self._span_reference(start, stop), self.dtype)
        gridded = self.group.values == "grid"
        dense = np.zeros(stop - start, np.int32 if gridded else self.dtype.step)
        for index, places, part in stored.numbers(geometry, exponents, where):
            dense[places] = grid.units(part, stored.class_offsets(index)) if gridded else part
        if not gridded:
            return None, dense
        found = np.flatnonzero(dense)
        decoded = found + start, dense[found]
        self._check_products(decoded, start, stop, where)
        return decoded

    def _geometry(self, start: int, stop: int) -> levels.Geometry:
        """Say where rows and columns lie in a part of the line."""
        shapes = self.group.shapes
        return levels.Geometry.of(
            [(self.dtype, shapes[record], first, last) for record, first, last in self._parts(start, stop)]
        )

    def _parts(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Give the records with words in a part of the line, and which of their words these are."""
        record = bisect_right(self.starts, start) - 1
        while start < stop:
            first, end = self.starts[record], min(stop, self.starts[record + 1])
            if end > start:
                yield record, start - first, end - first
            start, record = end, record + 1

    def _span_reference(self, start: int, stop: int) -> Words:
        """Give the reference words of a part of the line."""
        if self._references is None:
            raise BaseNeededError(f"{self._where}: {self.group.names[0]!r} and others are coded against the base")
        parts = [np.empty(0, self.dtype.word)]
        for record, first, last in self._parts(start, stop):
            parts.append(self._references(self.group.names[record]).slice(first, last))
        return np.concatenate(parts)

    def _check_numbers(self, numbers: Numbers, where: str) -> None:
        coding = self.group.values
        if numbers.dtype != stream_dtype(coding, self.dtype):
            raise CorruptFileError(f"{where}: {coding} values as {numbers.dtype.name}", "V1")
        if coding == "exact":
            if self.group.positions == "gaps" and not numbers.all():
                raise CorruptFileError(f"{where}: a step of 0", "V2")
        elif coding == "int8":
            if numbers.size and int(numbers.min()) < -int8.LIMIT:
                raise CorruptFileError(f"{where}: the value -128", "V1")
        elif not np.isfinite(floats.decode(numbers, coding)).all():
            raise CorruptFileError(f"{where}: a value that is not finite", "V3")

    def _check_products(self, decoded: tuple[Positions | None, Numbers], start: int, stop: int, where: str) -> None:
        """Check that numbers times their record's scale are finite."""
        if not self._scaled:
            return
        scales = self._scales
        if float(scales.max(initial=0)) <= _SAFE_SCALE:
            return
        positions, numbers = decoded
        words = np.arange(start, stop) if positions is None else positions
        records = np.searchsorted(self.starts, words, side="right") - 1
        with np.errstate(over="ignore"):
            if not np.isfinite(numbers.astype(np.float32) * scales[records]).all():
                raise CorruptFileError(f"{where}: a value times its scale is not finite", "V3")

    @cached_property
    def _scales(self) -> npt.NDArray[np.float32]:
        """The scale of each record of a group that has them. Raises `CorruptFileError`."""
        where = f"{self._where}: chunk {self._first - 1}"
        streams = self._chunk(self._first - 1)
        if len(streams) != 1 or streams[0].dtype != np.uint32 or streams[0].size != len(self.group.names):
            raise CorruptFileError(f"{where}: not one u32 scale for each record", "V4")
        scales: npt.NDArray[np.float32] = streams[0].view("<f4")
        if not np.isfinite(scales).all() or (scales < 0).any():
            raise CorruptFileError(f"{where}: a scale that is negative or not finite", "V4")
        return scales


_SAFE_SCALE = 2.0**100  # any number of int8 or grid values times it is finite


def _nbytes(decoded: tuple[Positions | None, Numbers]) -> int:
    return decoded[1].nbytes + (decoded[0].nbytes if decoded[0] is not None else 0)


def decoders(
    groups: Sequence[Group],
    chunk: Callable[[int], list[Numbers]],
    where: str,
    references: Callable[[str], Reference] | None = None,
) -> list[GroupDecoder]:
    """Make the decoder of each group; their chunks follow one another from chunk 0."""
    made: list[GroupDecoder] = []
    first = 0
    for group in groups:
        made.append(GroupDecoder(group, first, chunk, where, references))
        first = made[-1].chunks.stop
    return made
