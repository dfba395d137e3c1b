"""How a record will be stored: its scan, both codings, and the words chosen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from diffpack.extraction.scan.scan import Scan
from diffpack.format.factors.product import Factors
from diffpack.format.positions import PositionCoding
from diffpack.format.values import NO_SCALE, ValueCoding
from diffpack.support.found_once import found_once
from diffpack.tensors.dtypes import Positions


@dataclass(frozen=True)
class RecordPlan:
    """A record to be: `chosen` are the positions to store (None: all that differ).

    `conditioned` says whether the base may be needed to decode it, `rule` which one tells the chosen positions. The
    scale of grid values is a 256th of their step; what they stand for is added to what `factors` come to.
    """

    scan: Scan
    value_coding: ValueCoding
    position_coding: PositionCoding
    chosen: Positions | None = None
    scale: np.float32 = NO_SCALE
    conditioned: bool = False
    rule: str | None = None
    factors: Factors | None = None

    @found_once
    def key(self) -> tuple[str, str, str, str, str]:
        """What records of one group share: base dtype ("" for none), dtype, ids of both codings, what factors are."""
        pair = self.scan.pair
        base = pair.base.dtype.name if pair.base else ""
        return (
            base,
            pair.info.dtype.name,
            self.position_coding.id,
            self.value_coding.id,
            self.factors.values if self.factors else "",
        )

    @property
    def count(self) -> int:
        """How many words it stores a change of."""
        return self.scan.count if self.chosen is None else self.chosen.size


def in_groups(plans: Iterable[RecordPlan]) -> Iterator[list[RecordPlan]]:
    """The plans group by group, in the order in which the file has them."""
    ordered = sorted(plans, key=lambda plan: (plan.key, plan.scan.pair.name))
    for _, members in groupby(ordered, lambda plan: plan.key):
        yield list(members)
