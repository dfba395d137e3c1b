"""Which of several ways to code few changes is smallest, weighed by coding them.

What a coding saves can be less than another table of a stream and another group of records cost; of few bytes no
estimate tells that well enough.
"""

from __future__ import annotations

from collections.abc import Sequence

from diffpack.extraction.encode.record_plan import RecordPlan, in_groups
from diffpack.extraction.encode.spans import span_jobs
from diffpack.extraction.scan.scan import Scan
from diffpack.format.positions import PositionCoding
from diffpack.format.positions.levels import LEVELS

_CHANGES = 1 << 18
"""Changes that are weighed: of more, groups and tables are no thousandth of the bytes."""
_WORDS = 1 << 22
"""Words in levels that are coded for it, in tenths of a second; what gaps take goes with the changes."""
_GROUP_BYTES, _CHUNK_BYTES, _STREAM_BYTES = 60, 45, 10
_COUNTS_BYTES, _COUNT_BYTES = 25, 2
"""What the manifest has about each group, chunk and stream, about counts of changes, and each of them, compressed."""


def few_enough(items: Sequence[Scan]) -> bool:
    """Whether the changes of these tensors are few enough to be weighed."""
    return sum(item.count for item in items) <= _CHANGES


def smallest(ways: Sequence[list[RecordPlan]], profile: str) -> list[RecordPlan]:
    """The way to store the same tensors that takes the fewest bytes; of equal ones the first.

    The first is taken, too, if it has levels of too many words to be coded twice; others that have are left out.
    """
    if not _quick(ways[0]):
        return ways[0]
    codings = [[_coding(plan) for plan in plans] for plans in ways]
    different = [plans for at, plans in enumerate(ways) if codings[at] not in codings[:at] and _quick(plans)]
    return ways[0] if len(different) == 1 else min(different, key=lambda plans: coded_bytes(plans, profile))


def _coding(plan: RecordPlan) -> tuple[PositionCoding, bool]:
    return plan.position_coding, plan.conditioned and plan.position_coding is LEVELS


def _quick(plans: Sequence[RecordPlan]) -> bool:
    return sum(plan.scan.tuned.size for plan in plans if plan.position_coding is LEVELS) <= _WORDS


def coded_bytes(plans: Sequence[RecordPlan], profile: str) -> int:
    """Code plans, and count what they come to in the file, without what is the same for any coding."""
    total = 0
    for own in in_groups(plans):
        total += _GROUP_BYTES
        if own[0].position_coding.counted(own[0].value_coding):
            total += _COUNTS_BYTES + _COUNT_BYTES * len(own)
        for _, job in span_jobs(own, profile):
            chunk = job()
            total += len(chunk.data) + _CHUNK_BYTES + _STREAM_BYTES * len(chunk.streams)
    return total
