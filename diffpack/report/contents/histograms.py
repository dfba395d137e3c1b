"""How far a diff moves its entries: steps in units in the last place, and magnitudes; reads the diff's data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from diffpack.diff.diff import Diff, DiffLike
from diffpack.diff.record import TensorDiff
from diffpack.errors import BaseNeededError, DiffpackError
from diffpack.format.streams import Numbers
from diffpack.format.values import floats
from diffpack.format.values.exact import EXACT
from diffpack.format.values.summed import SUMMED
from diffpack.report.contents.bins import Bins, Histogram
from diffpack.report.found import called, each_diff
from diffpack.report.given_base import BaseLike, GivenBase, glance, opened
from diffpack.support.blas import single_threaded_products
from diffpack.support.parallel import Progress, run_in_order
from diffpack.tensors.dtypes import Positions
from diffpack.tensors.info import BLOCK_WORDS, blocks
from diffpack.tensors.reference import Reference

__all__ = ["DiffHistograms", "Histogram", "histograms"]

_WHOLE = 8
"""Bits of an entry that is not packed with others into one word."""
_KEPT_BYTES = 32 << 20
"""Decoded spans that are kept of each group: threads are at work on several records at once."""


@dataclass(frozen=True)
class DiffHistograms:
    """One diff: |steps| in ulp of its exact values, |changes| as floats; None where they are not known.

    `why` says why one is not: steps of a diff coded against its base, and the changes of exact values, need the base;
    or what of the diff is not in it, where that is a part.
    """

    name: str
    steps: Histogram | None
    magnitudes: Histogram | None
    why: str = ""


def histograms(
    diffs: DiffLike | Sequence[DiffLike],
    base: BaseLike = None,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> tuple[DiffHistograms, ...]:
    """Count how far each diff moves its entries, in the order given. A path may be a folder.

    Steps are those of exact values as they are stored, modulo 2^w: distances on the ordered-integer line, which of
    floats are units in the last place (across zero all floats between are counted), of integers differences; each the
    shorter way round. Lossy values have none, nor have new tensors, which step from nothing, and dtypes packed below a
    byte. What is added to a resized tensor steps from zero bits.

    Magnitudes are |result - reference| of F16, BF16, F32 and F64, in float32 (F64: float64), the reference being the
    base tensor in the result's dtype and shape, and 0 where the base has nothing; those of lossy values as they are
    stored, before they are added and rounded. Dtypes without float differences have none.

    `base` serves the diffs whose base it is: of a chain the first. For others, and without it, as much is done as needs
    no base, and `why` says what is left out; for a diff that cannot be read it says that. Memory holds a few decoded
    spans of one diff. `progress` is told bytes of results.

    Raises `UsageError` for a folder without diffs, `WrongBaseError` for a base that none of the diffs has.
    """
    given = GivenBase.once(base, threads)
    sources = list(each_diff(diffs))
    seen: dict[int, int] = {}
    known: list[tuple[DiffLike, str]] = []
    for at, source in enumerate(sources):
        try:
            found = glance(source)
        except DiffpackError:
            continue  # told below, where it is read
        seen[at] = found.result_bytes
        known.append((source, found.base_fingerprint))
    given.check(known)
    done, total = 0, sum(seen.values())
    made = []
    for at, source in enumerate(sources):
        tell = partial(_tell, progress, done, total)
        try:
            with opened(source) as diff:
                made.append(_of(diff, given, threads, tell))
        except DiffpackError as error:
            made.append(DiffHistograms(called(source)[0], None, None, str(error)))
        done += seen.get(at, 0)
        tell(seen.get(at, 0))
    return tuple(made)


def _tell(progress: Progress | None, done: int, total: int, nbytes: int) -> None:
    if progress is not None:
        progress("measuring", done + nbytes, total)


@dataclass
class _Known:
    """One of both histograms while it is being made: how many tensors are in it, and how many need the base for it."""

    bins: Bins = field(default_factory=Bins)
    tensors: int = 0
    lacking: int = 0

    def add(self, other: _Known) -> None:
        self.bins.add(other.bins)
        self.tensors += other.tensors
        self.lacking += other.lacking


def _of(diff: Diff, given: GivenBase, threads: int | None, tell: Callable[[int], None]) -> DiffHistograms:
    base = given.of(diff.manifest.base.fingerprint)
    references = None if base is None else diff.view(base).reference
    records = diff.read_once(_KEPT_BYTES, references)
    names = [name for decoder in diff.decoders for name in decoder.group.names]  # so each span is decoded once
    factored = any(decoder.group.factors is not None for decoder in diff.decoders)
    steps, magnitudes, nbytes = _Known(), _Known(), 0
    with single_threaded_products() if factored else nullcontext():
        jobs = (partial(_count, records[name], references) for name in names)
        for name, counted in zip(names, run_in_order(jobs, threads), strict=True):
            steps.add(counted[0])
            magnitudes.add(counted[1])
            nbytes += records[name].info.nbytes
            tell(nbytes)
    return DiffHistograms(
        diff.name,
        steps.bins.histogram(first=0) if steps.tensors or not records else None,
        magnitudes.bins.histogram() if magnitudes.tensors or not records else None,
        "; ".join(_why(diff, steps, magnitudes, given)),
    )


def _count(record: TensorDiff, references: Callable[[str], Reference] | None) -> tuple[_Known, _Known]:
    """Count the steps and the magnitudes of one record, as far as they are there."""
    steps, magnitudes = _Known(), _Known()
    dtype = record.info.dtype
    stepped = record.exact and record.base is not None and dtype.bits >= _WHOLE
    floating = dtype.arithmetic
    reference = Reference(record.info) if record.base is None else references and references(record.name)
    try:
        for positions, numbers in _stored(record):
            if stepped:
                steps.bins.add_steps(numbers)
            if floating and not record.exact:
                magnitudes.bins.add_floats(record.value_coding.differences(numbers, record.scale))
            elif floating and reference:
                before = reference.at(positions)
                magnitudes.bins.add_floats(floats.change(before, EXACT.change(before, numbers, dtype), dtype))
    except BaseNeededError:
        return _Known(lacking=int(stepped)), _Known(lacking=int(floating))
    steps.tensors = int(stepped)
    magnitudes.tensors = int(floating and (not record.exact or reference is not None))
    magnitudes.lacking = int(floating) - magnitudes.tensors
    return steps, magnitudes


def _stored(record: TensorDiff) -> Iterator[tuple[Positions, Numbers]]:
    """What `TensorDiff.count` counts, block by block: positions and numbers."""
    every = record.value_coding is SUMMED
    for part in record.changes():
        if part.positions is not None:
            for first in range(0, part.positions.size, BLOCK_WORDS):
                yield part.positions[first : first + BLOCK_WORDS], part.numbers[first : first + BLOCK_WORDS]
            continue
        for start, stop in blocks(part.stop, part.start):
            numbers = part.numbers[start - part.start : stop - part.start]
            places = np.arange(numbers.size) if every else np.flatnonzero(numbers)
            yield places + start, numbers[places]


def _why(diff: Diff, steps: _Known, magnitudes: _Known, given: GivenBase) -> Iterator[str]:
    """What is not in the histograms, and what to do about it."""
    if diff and not steps.tensors + steps.lacking:
        yield "none of its values are steps from a base tensor"
    if diff and not magnitudes.tensors + magnitudes.lacking:
        yield "none of its tensors has float differences"
    if steps.lacking:
        yield f"steps: {steps.lacking} of {steps.tensors + steps.lacking} tensors are coded against the base"
    if magnitudes.lacking:
        of = magnitudes.tensors + magnitudes.lacking
        yield f"magnitudes: {magnitudes.lacking} of {of} tensors are stored as steps, which need the base"
    if steps.lacking or magnitudes.lacking:
        source = given.checkpoint and given.checkpoint.source
        yield f"its base is another one than {source}" if source else "give the base"
