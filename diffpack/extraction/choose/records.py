"""What a diff stores of each tensor: nothing (equal, tied), every difference exactly, or a lossy choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from diffpack.extraction.choose.entries import positions_by_rule, select
from diffpack.extraction.choose.exact import exact_records
from diffpack.extraction.encode.record_plan import RecordPlan
from diffpack.extraction.encode.scales import fit_scales
from diffpack.extraction.lowrank.plans import few_directions
from diffpack.extraction.options import RANK, Options
from diffpack.extraction.scan.scan import Scan
from diffpack.format.positions.every_word import DENSE_ENOUGH, EVERY_WORD
from diffpack.format.positions.gaps import GAPS
from diffpack.format.positions.rule import BY_RULE
from diffpack.format.positions.rule_words import Rule
from diffpack.format.values import ValueCoding, floats
from diffpack.format.values.int8 import Multiples
from diffpack.format.values.summed import SUMMED
from diffpack.support.parallel import run_in_order


def float_entries(scans: Sequence[Scan]) -> int:
    """Count the entries a density is a fraction of: those of float tensors both sides have."""
    return sum(item.tuned.size for item in scans if item.pair.both_float)


def choose(
    scans: Sequence[Scan], options: Options, entries: int, done: Callable[[int], None] | None = None
) -> list[RecordPlan]:
    """Decide for each tensor how its values are coded and which entries are kept.

    `entries` is what a density is a fraction of, `done` told the bytes of each tensor that takes long.
    """
    value_coding = options.value_coding
    lossy = [] if options.exact else [item for item in scans if may_be_lossy(item, value_coding)]
    if value_coding is SUMMED:
        plans = few_directions(lossy, options.rank or RANK, options.threads)
    elif options.selection.everything:
        plans = [_everything(item, value_coding) for item in lossy]
    elif options.selection.rule is not None:
        plans = _by_rule(lossy, options, options.selection.rule)
    else:
        picked = select(lossy, options.selection, entries, options.threads)
        plans = [RecordPlan(item, value_coding, GAPS, chosen) for item, chosen in zip(lossy, picked, strict=True)]
    if isinstance(value_coding, Multiples):
        plans = fit_scales(plans, value_coding)
    decided = {plan.scan.pair.name: plan for plan in plans}
    rest = exact_records([item for item in scans if item.pair.name not in decided], options, done)
    decided |= {plan.scan.pair.name: plan for plan in rest}
    return [decided[item.pair.name] for item in scans]


def _by_rule(scans: Sequence[Scan], options: Options, text: str) -> list[RecordPlan]:
    """Keep the words a rule tells; a tensor of which no count is given is kept whole."""
    selection, value_coding, rule = options.selection, options.value_coding, Rule.parse(text)
    assert rule is not None  # the selection was checked
    counts = [selection.count(item.pair.name, item.tuned.size) for item in scans]
    pairs = [(item, count) for item, count in zip(scans, counts, strict=True) if count is not None]
    told = run_in_order((partial(positions_by_rule, item, rule, count) for item, count in pairs), options.threads)
    plans = []
    for item, count in zip(scans, counts, strict=True):
        if count is not None:
            plans.append(RecordPlan(item, value_coding, BY_RULE, next(told), rule=text))
        elif not value_coding.exact:  # or it is among those that stay exact
            plans.append(_everything(item, value_coding))
    return plans


def _everything(item: Scan, value_coding: ValueCoding) -> RecordPlan:
    return RecordPlan(item, value_coding, EVERY_WORD if item.density >= DENSE_ENOUGH else GAPS)


def may_be_lossy(item: Scan, value_coding: ValueCoding) -> bool:
    """Tell whether a tensor may be stored in part or rounded.

    It must be an old tensor of its old shape and of an arithmetic dtype, and every difference must be finite in
    the value coding; any other is stored exactly.
    """
    pair = item.pair
    dtype = pair.info.dtype
    if not pair.both_float or pair.resized:
        return False
    as_floats = value_coding if isinstance(value_coding, floats.Floats) else floats.F32
    for start, stop in item.changed_blocks():
        delta = floats.difference(item.reference.slice(start, stop), item.tuned[start:stop], dtype)
        if not np.isfinite(as_floats.differences(as_floats.numbers(delta))).all():
            return False
    return True
