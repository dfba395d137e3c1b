"""The records with factors of a diff that becomes an adapter: written as pairs, without what the grid adds to them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from diffpack.bridges.formats.peft_pairs import pair_of
from diffpack.bridges.formats.peft_parts import Parts
from diffpack.diff.record import TensorDiff
from diffpack.support.names import listed, printable


class Paired:
    """Takes the factors of records that fit into the parts of an adapter, and measures what else changes them."""

    def __init__(self, parts: Parts, names: Sequence[str]) -> None:
        self._shares: dict[str, tuple[float, float]] = {}
        for name in names:
            record = parts.result.diff[name]
            factors = record.factors
            assert factors is not None  # whoever names it has looked
            parts.take(name, pair_of(factors))
            self._shares[name] = _beside_factors(record)

    def notes(self, *left: Sequence[str]) -> list[str]:
        """Say to people what the adapter lacks; `left` are kinds of records, for people, that were left out whole."""
        notes = []
        beside, whole = (float(np.sum([share[at] for share in self._shares.values()])) for at in (0, 1))
        if beside:
            worst = max(self._shares, key=lambda name: _ratio(*self._shares[name]))
            notes.append(
                f"left out: what the grid adds to factors, {_ratio(beside, whole):.2g} of these layers' change in the "
                f"L2 norm, at most {_ratio(*self._shares[worst]):.2g} ({printable(worst)})"
            )
        return notes + [f"left out: {listed(list(kind))}" for kind in left if kind]


def _beside_factors(record: TensorDiff) -> tuple[float, float]:
    """The sum of squares of what a record's grid adds to its factors, and that of its whole change."""
    factors = record.factors
    assert factors is not None
    beside = whole = 0.0
    for part in record.changes():
        values = part.numbers.astype(np.float64)
        rest = values - factors.change(part.start, part.stop)
        beside, whole = beside + float(rest @ rest), whole + float(values @ values)
    return beside, whole


def _ratio(part: float, whole: float) -> float:
    return float(np.sqrt(part / whole)) if whole else 0.0
