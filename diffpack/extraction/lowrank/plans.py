"""The first directions of every matrix's change, as a user may ask for them without a budget."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from diffpack.extraction.encode.record_plan import RecordPlan
from diffpack.extraction.lowrank.matrices import views
from diffpack.extraction.lowrank.record import LowRank
from diffpack.extraction.scan.scan import Scan
from diffpack.format.positions.every_word import DENSE_ENOUGH, EVERY_WORD
from diffpack.format.positions.gaps import GAPS
from diffpack.format.positions.levels import LEVELS
from diffpack.format.values.floats import F32
from diffpack.format.values.grid import GRID
from diffpack.support.blas import single_threaded_products
from diffpack.support.parallel import run_all


def few_directions(scans: Sequence[Scan], rank: int, threads: int | None) -> list[RecordPlan]:
    """For each scan (lossy, finite) the record with factors of that rank and nothing beside them.

    What is no matrix, or has no factors whose products are exact, has all its differences as f32.
    """
    with single_threaded_products():
        return run_all([partial(_plan, scan, rank) for scan in scans], threads)


def _plan(scan: Scan, rank: int) -> RecordPlan:
    ways = views(scan)
    factors = LowRank(ways[0], rank).of_rank() if ways else None
    if factors is not None:
        return RecordPlan(scan, GRID, LEVELS, factors=factors)
    return RecordPlan(scan, F32, EVERY_WORD if scan.density >= DENSE_ENOUGH else GAPS)
