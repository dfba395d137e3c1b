"""A byte budget or a target error -> the diff that lands on it.

One step for all tensors is what least squares asks for: at the best point of rate and distortion a bit buys the same
everywhere. What a step gives is foretold (`forecast`); then the diff is written, applied and measured, and the step put
right by what came out, until it lands (`search`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import BinaryIO

from diffpack.errors import UsageError
from diffpack.extraction.budget.forecast import Forecast
from diffpack.extraction.budget.graded import Graded, grade, plans_at, with_low_rank
from diffpack.extraction.budget.passes import Passes
from diffpack.extraction.budget.search import Attempt, Search
from diffpack.extraction.choose.exact import exact_records
from diffpack.extraction.choose.records import choose, may_be_lossy
from diffpack.extraction.course import FITTING, SEARCHING
from diffpack.extraction.encode.record_plan import RecordPlan
from diffpack.extraction.options import Options
from diffpack.extraction.scan.survey import Survey
from diffpack.extraction.target import Target
from diffpack.extraction.write import Written, write_plans
from diffpack.format import limits
from diffpack.format.values.grid import GRID
from diffpack.support.parallel import Progress, counter


@dataclass(frozen=True)
class Landing:
    """Writes a diff into `file` again and again, until it is as near to the target as is asked for."""

    file: BinaryIO
    surveyed: Survey
    options: Options
    target: Target
    metadata: dict[str, str]
    passes: Passes
    searching: Progress | None = None

    def written(self) -> Written:
        """Write the diff at one step after the other until it lands; end with the best one written, and say what it is.

        With factors first; without them, too, where bytes jump with them and the diff lands short. Where no step keeps
        to the target, the exact diff does if it is an error, and nothing if it is a budget: then raises `UsageError`.
        """
        plain = self._graded
        if not plain:
            whole = self._exactly()
            if not self.target.kept(whole.nbytes, whole.error):
                raise UsageError(_not_enough(self.target, whole))
            return whole
        forecast = Forecast(plain, self.options.threads)
        search = Search(self.target, forecast)
        if self.options.rank == 0:
            return self._best([(search, plain)])
        done = counter(self.searching, SEARCHING, sum(item.scan.pair.info.nbytes for item in plain))
        factored = with_low_rank(plain, self.options.rank or limits.RANK, search.first, self.options.threads, done)
        with_factors = Search(self.target, forecast.with_factors(factored), search.first)
        return self._best([(with_factors, factored), (search, plain)])

    def _best(self, ways: Sequence[tuple[Search, Sequence[Graded]]]) -> Written:
        """Search one way after the other until one lands; the best of all attempts."""
        best: tuple[Attempt, Sequence[Graded]] | None = None
        last = None
        for search, graded in ways:
            while (step := search.next()) is not None:
                if last is None and search.nearly_exact(step):
                    whole = self._exactly()
                    if search.keeps(whole):
                        return whole
                last = self._at(step, graded)
                search.tell(last)
            if search.best is not None and (best is None or self._better(search.best, best[0])):
                best = search.best, graded
            if search.landed:
                break
        if best is not None:
            return best[0].file if best[0] is last else self._at(best[0].step, best[1]).file
        if self.target.error is not None:
            return self._exactly()
        search, graded = ways[-1]
        coarsest = self._at(search.coarsest, graded)
        if not search.keeps(coarsest.file):
            raise UsageError(_not_enough(self.target, coarsest.file))
        return coarsest.file

    def _better(self, one: Attempt, other: Attempt) -> bool:
        """Whether an attempt that keeps to the target is better than another one that does."""
        if self.target.budget is not None:
            return one.file.error < other.file.error
        return one.file.nbytes < other.file.nbytes

    @cached_property
    def _graded(self) -> list[Graded]:
        """The tensors the grid may take."""
        return grade([item for item in self.surveyed.stored if may_be_lossy(item, GRID)], self.options.importance)

    @cached_property
    def _exact(self) -> list[RecordPlan]:
        """The records of all other tensors."""
        own = {item.scan.pair.name for item in self._graded}
        return exact_records([item for item in self.surveyed.stored if item.pair.name not in own], self.options)

    def _exactly(self) -> Written:
        plain = replace(self.options, target=None, importance=None, rank=None)
        return self._write(choose(self.surveyed.stored, plain, 0), plain, self.passes.next())

    def _at(self, step: float, graded: Sequence[Graded]) -> Attempt:
        told = self.passes.next()
        done = counter(told, FITTING, sum(item.scan.pair.info.nbytes for item in graded))
        plans = self._exact + plans_at(graded, step, self.options.threads, done)
        return Attempt(step, self._write(plans, self.options, told))

    def _write(self, plans: Sequence[RecordPlan], options: Options, progress: Progress | None) -> Written:
        self.file.seek(0)
        self.file.truncate()
        return write_plans(self.file, self.surveyed, plans, options, self.metadata, progress)


def _not_enough(target: Target, least: Written) -> str:
    return (
        f"a budget of {target.budget or 0:,} bytes is not enough: what is stored exactly, the manifest and the files "
        f"around the tensors take {least.nbytes - least.grid_bytes:,}; raise it, or leave files out"
    )
