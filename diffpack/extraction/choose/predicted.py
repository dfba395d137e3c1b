"""Which exact records get factors: those whose steps from what these predict, and the factors, are fewer bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from diffpack.extraction.choose.coding import dtypes_of, sampled_bytes, words_together
from diffpack.extraction.encode.record_plan import RecordPlan
from diffpack.extraction.lowrank.prediction import predicting
from diffpack.extraction.lowrank.record import GROUP_BITS
from diffpack.extraction.options import Options
from diffpack.format.factors.predicted import Predicted
from diffpack.format.positions.levels import LEVELS
from diffpack.support.blas import single_threaded_products
from diffpack.support.parallel import run_counted

_SMALL = 1 << 12
"""Words of a matrix, at most, whose directions are not looked for: that takes milliseconds, and of so few words a
sample does not tell what factors save (300 matrices of 64 x 64, of which a tenth of the rows change: 5 % larger)."""


def predicted_records(
    plans: Sequence[RecordPlan], options: Options, done: Callable[[int], None] | None = None
) -> list[RecordPlan]:
    """The same exact records, with factors where a sample says that these save more than they take.

    Few changes in a tensor have no common directions: such a record stays as it is, and so do all if they do not save
    what a group of them costs. `done` is told the bytes of each tensor that was looked at.
    """
    dense = [
        at
        for at, plan in enumerate(plans)
        if plan.conditioned and plan.scan.kept is None and plan.scan.tuned.size > _SMALL
    ]
    if not dense or options.rank == 0:
        return list(plans)
    together = words_together([plan.scan for plan in plans])
    with single_threaded_products():
        jobs = [partial(_predicted, plans[at], options, together[dtypes_of(plans[at].scan)]) for at in dense]
        sizes = [plans[at].scan.pair.info.nbytes for at in dense]
        found = dict(zip(dense, run_counted(jobs, sizes, options.threads, done), strict=True))
    if sum(saved for _, saved in found.values()) <= GROUP_BITS:
        return list(plans)
    return [found[at][0] if at in found else plan for at, plan in enumerate(plans)]


def _predicted(plan: RecordPlan, options: Options, together: int) -> tuple[RecordPlan, float]:
    """The record with factors and the bits they save, or as it is."""
    factors, bits = predicting(plan.scan, options.rank)
    if factors is None:
        return plan, 0.0
    scan = replace(plan.scan, reference=Predicted(plan.scan.reference, factors))
    before, after = (sampled_bytes(item, options.profile, together) for item in (plan.scan, scan))
    saved = 8 * (before - after) - bits
    if saved <= 0:
        return plan, 0.0
    return replace(plan, scan=scan, position_coding=LEVELS, factors=factors), saved
