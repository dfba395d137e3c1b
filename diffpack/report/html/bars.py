"""Histograms as bars: of all tasks of a base together, and small ones of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from diffpack.report.contents.histograms import DiffHistograms, Histogram

MOST_SMALL = 60
"""Tasks that get a histogram of their own."""
WIDTH, HEIGHT = 600, 120
"""Units a histogram is drawn in; it is stretched to its place."""
_GAP = 0.12
"""Of a bar's place, what is left free."""


@dataclass(frozen=True)
class Bar:
    """A bin: `label` says what it holds; its place in a drawing of `WIDTH` x `HEIGHT`."""

    label: str
    count: int
    x: str
    y: str
    width: str
    height: str


@dataclass(frozen=True)
class Bars:
    """A histogram: `middle` is the label of the bin with the median, `total` what is in bins.

    `zero` entries are stored and do not move, the change of `not_finite` ones is infinite or no number.
    """

    bars: tuple[Bar, ...]
    total: int
    middle: str
    zero: int
    not_finite: int

    @property
    def path(self) -> str:
        """All bars as one shape, for small drawings."""
        return "".join(f"M{bar.x} {HEIGHT}v-{bar.height}h{bar.width}v{bar.height}z" for bar in self.bars if bar.count)


def bars(found: Sequence[Histogram], label: Callable[[float, float], str]) -> Bars | None:
    """Add histograms up and draw them. None if they count nothing."""
    bins: dict[tuple[float, float], int] = {}
    for item in found:
        for edges, count in zip(pairwise(item.edges), item.counts, strict=True):
            bins[edges] = bins.get(edges, 0) + count
    order = _trimmed([(edges, bins[edges]) for edges in sorted(bins)])
    total = sum(count for _, count in order)
    if not total:
        return None
    most, step = max(count for _, count in order), WIDTH / len(order)
    drawn = []
    for at, ((low, high), count) in enumerate(order):
        height = HEIGHT * count / most
        x = f"{(at + _GAP / 2) * step:.1f}"
        drawn.append(
            Bar(label(low, high), count, x, f"{HEIGHT - height:.1f}", f"{(1 - _GAP) * step:.1f}", f"{height:.1f}")
        )
    middle = next(at for at, reached in enumerate(accumulate(count for _, count in order)) if 2 * reached >= total)
    zero, not_finite = sum(item.zero for item in found), sum(item.not_finite for item in found)
    return Bars(tuple(drawn), total, drawn[middle].label, zero, not_finite)


def _trimmed(bins: list[tuple[tuple[float, float], int]]) -> list[tuple[tuple[float, float], int]]:
    """Leave out empty bins at both ends."""
    full = [at for at, (_, count) in enumerate(bins) if count]
    return bins[full[0] : full[-1] + 1] if full else []


def step_label(low: float, high: float) -> str:
    """Steps are whole: `1`, `2-3`, `4-7`."""
    first, last = round(low), round(high) - 1
    return f"{first:,}" if last <= first else f"{first:,}\N{EN DASH}{last:,}"


def magnitude_label(low: float, high: float) -> str:
    """`0.000122 to 0.000244`."""
    return f"{low:.3g} to {high:.3g}"


@dataclass(frozen=True)
class Small:
    """The histograms of one task; `why` says why one is not there."""

    name: str
    steps: Bars | None
    magnitudes: Bars | None
    why: str


@dataclass(frozen=True)
class Histograms:
    """Those of a base's tasks together, of each (if these are few), and of how many tasks."""

    steps: Bars | None
    magnitudes: Bars | None
    each: tuple[Small, ...]
    count: int


def histograms(found: Iterable[DiffHistograms]) -> Histograms | None:
    """Add up and draw those of a base's tasks. None if there is none."""
    items = list(found)
    if not items:
        return None
    steps = [item.steps for item in items if item.steps is not None]
    magnitudes = [item.magnitudes for item in items if item.magnitudes is not None]
    each = [_small(item) for item in items] if len(items) <= MOST_SMALL else []
    return Histograms(bars(steps, step_label), bars(magnitudes, magnitude_label), tuple(each), len(items))


def _small(item: DiffHistograms) -> Small:
    return Small(
        item.name,
        None if item.steps is None else bars([item.steps], step_label),
        None if item.magnitudes is None else bars([item.magnitudes], magnitude_label),
        item.why,
    )
