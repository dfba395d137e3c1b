"""How a tensor will be stored: both codings, and the words chosen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffpack.extraction.scan.scan import Scan
from diffpack.format.positions.gaps import Positions

_NO_SCALE = np.float32(0)


@dataclass(frozen=True)
class Record:
    """A tensor to store: its scan, both codings, and the chosen positions (None: all that differ).

    `conditioned` says whether the base may be needed to decode it, `rule` which one told the chosen positions,
    `quantiser` how int8 values are made. The scale of grid values is a 256th of their step.
    """

    scan: Scan
    values: str
    positions: str
    chosen: Positions | None = None
    scale: np.float32 = _NO_SCALE
    conditioned: bool = False
    rule: str | None = None
    quantiser: str = "int8"

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What records of one group share: base dtype ("" for none), dtype, positions, values."""
        pair = self.scan.pair
        return (pair.base.dtype.name if pair.base else "", pair.info.dtype.name, self.positions, self.values)
