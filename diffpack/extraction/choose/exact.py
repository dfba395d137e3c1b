"""Exact records: which position coding each is stored in, and which have factors that predict them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from diffpack.extraction.choose.coding import best_positions, dtypes_of
from diffpack.extraction.choose.predicted import predicted_records
from diffpack.extraction.choose.riders import with_riders
from diffpack.extraction.choose.weigh import few_enough, smallest
from diffpack.extraction.encode.record_plan import RecordPlan
from diffpack.extraction.options import Options
from diffpack.extraction.scan.scan import Scan
from diffpack.format.features import CONDITIONED, WITHOUT_BASE
from diffpack.format.positions import PositionCoding
from diffpack.format.positions.levels import LEVELS
from diffpack.format.values.exact import EXACT


def exact_records(
    scans: Sequence[Scan], options: Options, done: Callable[[int], None] | None = None
) -> list[RecordPlan]:
    """Store tensors exactly, in the position coding asked for or, for each, measured to be the smallest."""
    asked, conditioned = options.position_coding, options.profile == CONDITIONED
    codings = [asked] * len(scans) if asked is not None else best_positions(scans, options.profile, options.threads)
    plans = _planned(scans, codings, conditioned=conditioned)
    if conditioned and asked is None:
        plans = _weighed(plans, options)
    if conditioned and asked in (None, LEVELS):
        plans = predicted_records(plans, options, done)
    return _riding(plans, options) if conditioned and asked is None else plans


def _planned(scans: Sequence[Scan], codings: Sequence[PositionCoding], *, conditioned: bool) -> list[RecordPlan]:
    return [
        RecordPlan(item, EXACT, coding, conditioned=conditioned and item.pair.float_reference)
        for item, coding in zip(scans, codings, strict=True)
    ]


def _weighed(plans: Sequence[RecordPlan], options: Options) -> list[RecordPlan]:
    """The plans, or others where few changes are smaller so: as without the base, or all of them against it."""
    better: dict[str, RecordPlan] = {}
    for own in _alike(plans):
        items = [plan.scan for plan in own]
        if few_enough(items):
            plain = _planned(items, best_positions(items, WITHOUT_BASE, options.threads), conditioned=False)
            levels = [LEVELS if plan.conditioned and plan.count else plan.position_coding for plan in own]
            ways = [own, plain, _planned(items, levels, conditioned=True)]
            better |= {plan.scan.pair.name: plan for plan in smallest(ways, options.profile)}
    return [better.get(plan.scan.pair.name, plan) for plan in plans]


def _riding(plans: Sequence[RecordPlan], options: Options) -> list[RecordPlan]:
    """The plans, or others where small tensors are smaller among large ones; few changes were weighed already."""
    better: dict[str, RecordPlan] = {}
    for own in _alike(plans):
        if not few_enough([plan.scan for plan in own]):
            better |= {plan.scan.pair.name: plan for plan in with_riders(own, options.profile, options.threads)}
    return [better.get(plan.scan.pair.name, plan) for plan in plans]


def _alike(plans: Sequence[RecordPlan]) -> Iterable[list[RecordPlan]]:
    """The plans by the dtypes of base and tensor."""
    alike: dict[tuple[str, str], list[RecordPlan]] = {}
    for plan in plans:
        alike.setdefault(dtypes_of(plan.scan), []).append(plan)
    return alike.values()
