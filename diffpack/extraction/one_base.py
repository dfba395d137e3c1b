"""One base, and the fine-tunes whose diffs are made against it, one after the other."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import BinaryIO, Self

from diffpack.checkpoints import Checkpoint, CheckpointLike, open_checkpoint
from diffpack.checkpoints.side_files import files_of
from diffpack.diff.diff import Diff
from diffpack.diff.publish import write_diff
from diffpack.extraction.budget.importance import weights
from diffpack.extraction.budget.landing import Landing
from diffpack.extraction.budget.passes import Passes
from diffpack.extraction.choose.records import choose, float_entries
from diffpack.extraction.course import CHOOSING, PASSES, SEARCHING, Course
from diffpack.extraction.options import Options
from diffpack.extraction.scan.gone import advice_on_base, refuse_most_gone
from diffpack.extraction.scan.survey import survey
from diffpack.extraction.write import write_plans
from diffpack.result import overflow
from diffpack.support.blas import single_threaded_products
from diffpack.support.cycles import rare_collections
from diffpack.support.inputs import Inputs
from diffpack.support.parallel import Progress, counter
from diffpack.tensors.rename_patterns import unused


class OneBase:
    """A base that is hashed once, with the first fine-tune: those that follow are only compared with it.

    `importance` is the checkpoint of weights, if there is one. The files of both are watched from here on, and looked
    at again before each diff is published; a base in memory must stay as it is by itself.
    """

    def __init__(self, base: Checkpoint, importance: Checkpoint | None = None) -> None:
        self.base = base
        self._importance = importance
        self._inputs = Inputs(path for item in (base, importance) if item is not None for path in files_of(item))
        self._digests: dict[str, bytes] = {}

    @classmethod
    def of(cls, base: CheckpointLike, importance: CheckpointLike | None) -> Self:
        """Open both. Raises as `open_checkpoint` does."""
        return cls(open_checkpoint(base), None if importance is None else open_checkpoint(importance))

    @rare_collections()
    def extract(
        self,
        tuned: Checkpoint,
        output: str | os.PathLike[str] | None,
        options: Options,
        metadata: Mapping[str, str],
        *,
        force: bool = False,
        progress: Progress | None = None,
    ) -> Diff:
        """Store a fine-tune as its difference from the base; raises as `diffpack.extract` does."""
        self._inputs.check()
        inputs = self._inputs.and_now(files_of(tuned))
        if self._importance is not None:
            options = replace(options, importance=weights(self._importance, tuned.tensors))
        if options.target is not None:
            options = replace(options, target=options.target.of_base(self.base.nbytes))
        body = partial(self._write, tuned=tuned, options=options, metadata=dict(metadata), progress=progress)
        return write_diff(output, inputs, force, body)

    def _write(
        self,
        file: BinaryIO,
        tuned: Checkpoint,
        options: Options,
        metadata: dict[str, str],
        progress: Progress | None,
    ) -> None:
        base = self.base
        course = Course(progress, tuned.nbytes, options)
        surveyed = survey(base, tuned, options, course.scanned, self._digests)
        if not options.allow_removed:
            refuse_most_gone(base, tuned, surveyed.used)
        tuned.advice += advice_on_base(base, tuned) + unused(options.rename or (), base.tensors, base.source)
        if options.target is not None:
            with Passes(course.stage(PASSES)) as passes, single_threaded_products():
                searching = course.stage(SEARCHING)
                written = Landing(file, surveyed, options, options.target, metadata, passes, searching).written()
        else:
            total = sum(item.pair.info.nbytes for item in surveyed.stored)
            done = counter(course.stage(CHOOSING), CHOOSING, total)
            plans = choose(surveyed.stored, options, float_entries(surveyed.scans), done)
            course.at(CHOOSING, 1, 1)
            with single_threaded_products() if any(plan.factors for plan in plans) else nullcontext():
                written = write_plans(file, surveyed, plans, options, metadata, course.told)
        course.whole()
        if written.infinite:
            tuned.notes.append(overflow.remark(written.infinite))
