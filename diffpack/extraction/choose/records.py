"""What a diff stores of each tensor: nothing (equal, tied), every difference exactly, or a lossy choice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from diffpack.extraction.choose.coding import DENSE, best_positions
from diffpack.extraction.choose.entries import select, told
from diffpack.extraction.encode.record import Record
from diffpack.extraction.encode.scales import fit_scales
from diffpack.extraction.options import Options
from diffpack.extraction.scan.scan import Scan
from diffpack.format.values import floats, int8
from diffpack.support.parallel import run_in_order


def float_entries(scans: Sequence[Scan]) -> int:
    """Count the entries a density is a fraction of: those of float tensors both sides have."""
    return sum(item.tuned.size for item in scans if item.pair.both_float)


def choose(scans: Sequence[Scan], options: Options, entries: int) -> list[Record]:
    """Decide for each tensor how its values are coded and which entries are kept.

    `entries` is what a density is a fraction of.
    """
    lossy = [] if options.exact else [item for item in scans if may_be_lossy(item, options.values)]
    if options.selection.everything:
        records = [_everything(item, options.values) for item in lossy]
    elif options.selection.rule is not None:
        records = _by_rule(lossy, options, options.selection.rule)
    else:
        picked = select(lossy, options.selection, entries, options.threads)
        pairs = zip(lossy, picked, strict=True)
        records = [Record(item, options.values, "gaps", positions) for item, positions in pairs]
    if options.values in int8.LIMITS:
        records = fit_scales([replace(record, values="int8", quantiser=options.values) for record in records])
    chosen = {record.scan.pair.name: record for record in records}
    rest = exact_records([item for item in scans if item.pair.name not in chosen], options)
    chosen |= {record.scan.pair.name: record for record in rest}
    return [chosen[item.pair.name] for item in scans]


def _by_rule(scans: Sequence[Scan], options: Options, rule: str) -> list[Record]:
    """Keep the words a rule tells; a tensor of which no count is given is kept whole."""
    selection, values = options.selection, options.values
    counts = [selection.count(item.pair.name, item.tuned.size) for item in scans]
    jobs = [partial(told, item, rule, count) for item, count in zip(scans, counts, strict=True) if count is not None]
    found = run_in_order(jobs, options.threads)
    records = []
    for item, count in zip(scans, counts, strict=True):
        if count is not None:
            records.append(Record(item, values, "rule", next(found), rule=rule))
        elif values != "exact":  # or it is among those that stay exact
            records.append(_everything(item, values))
    return records


def _everything(item: Scan, values: str) -> Record:
    return Record(item, values, "all" if item.density >= DENSE else "gaps")


def exact_records(scans: Sequence[Scan], options: Options) -> list[Record]:
    """Store tensors exactly, in the position coding asked for or, for each, measured to be the smallest."""
    together: Counter[tuple[str, str]] = Counter()
    for item in scans:
        together[_dtypes(item)] += item.tuned.size
    jobs = [partial(_exact_record, item, options, together[_dtypes(item)]) for item in scans]
    return list(run_in_order(jobs, options.threads))


def _dtypes(item: Scan) -> tuple[str, str]:
    pair = item.pair
    return pair.base.dtype.name if pair.base else "", pair.info.dtype.name


def _exact_record(item: Scan, options: Options, together: int) -> Record:
    positions = best_positions(item, options.profile, together) if options.positions == "auto" else options.positions
    may_use_base = options.profile == "smallest" and item.pair.both_float
    return Record(item, "exact", positions, conditioned=may_use_base)


def may_be_lossy(item: Scan, values: str) -> bool:
    """Tell whether a tensor may be stored in part or rounded.

    It must be an old tensor of its old shape and of an arithmetic dtype, and every difference must be finite in
    the value coding; any other is stored exactly.
    """
    pair = item.pair
    dtype = pair.info.dtype
    if not pair.both_float or pair.resized:
        return False
    coding = values if values in floats.FLOATS else "f32"
    for start, stop in item.changed_blocks():
        delta = floats.difference(item.reference.slice(start, stop), item.tuned[start:stop], dtype)
        if not np.isfinite(floats.decode(floats.encode(delta, coding), coding)).all():
            return False
    return True
