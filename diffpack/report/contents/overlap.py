"""Where tasks of one base change the same entries: reads the diffs' data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from diffpack.diff.diff import DiffLike
from diffpack.diff.record import TensorDiff
from diffpack.errors import DiffpackError
from diffpack.report.contents.marks import Key, Row, Stretch, in_common, marked, stretch_bits, stretches
from diffpack.report.contents.tasks import Tasks
from diffpack.report.found import called, each_diff
from diffpack.report.given_base import BaseLike, GivenBase, glance
from diffpack.support.blas import single_threaded_products
from diffpack.support.parallel import Progress, run_all


@dataclass(frozen=True)
class TaskOverlap:
    """Of each pair of diffs of one base how many entries both change; `both[i][i]` is what diff i changes itself.

    `names` are those of the diffs, in the order of rows and columns. `missing` are diffs that could not be read for it,
    with the reason. Entries are words for complex and sub-byte dtypes; with low-rank factors every entry changes, and
    of entries that a rule chooses all of them.
    """

    base_fingerprint: str
    names: tuple[str, ...]
    both: tuple[tuple[int, ...], ...]
    missing: tuple[tuple[str, str], ...] = ()

    def jaccard(self, first: int, second: int) -> float:
        """Entries both change / entries any of the two changes (1 if there is none)."""
        shared = self.both[first][second]
        union = self.both[first][first] + self.both[second][second] - shared
        return shared / union if union else 1.0


def overlaps(
    diffs: DiffLike | Sequence[DiffLike],
    base: BaseLike = None,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> tuple[TaskOverlap, ...]:
    """Count, for the diffs of each base, how many entries each pair changes in common. A path may be a folder.

    Families of one diff are left out. Tensors meet by the base's names, whatever the diffs rename, where they have the
    same dtypes and shapes; tied ones count where they are stored. Every diff is decoded once; all diffs of one base are
    open meanwhile, and memory holds a few million words of each as bits, and a decoded span of each of its groups.

    `base` serves the diffs whose base it is. Diffs that cannot be read, or need the base and have none (coded against
    it, or making tensors of others), are `missing`; those that cannot even be opened are so in every family. `progress`
    is told bytes of results. Raises `UsageError` for a folder without diffs, `WrongBaseError` for the base of none.
    """
    given = GivenBase.once(base, threads)
    families: dict[str, list[tuple[int, DiffLike]]] = {}
    unread: dict[int, tuple[str, str]] = {}
    sizes: Counter[str] = Counter()
    for at, source in enumerate(each_diff(diffs)):
        try:
            seen = glance(source)
        except DiffpackError as error:
            unread[at] = called(source)[0], str(error)
            continue
        families.setdefault(seen.base_fingerprint, []).append((at, source))
        sizes[seen.base_fingerprint] += seen.result_bytes
    given.check([(source, of) for of, members in families.items() for _, source in members])
    several = {of: members for of, members in families.items() if len(members) > 1}
    done, total = 0, sum(sizes[of] for of in several)
    found = []
    for of, members in several.items():
        tell = partial(_tell, progress, done, sizes[of], total)
        with ExitStack() as stack:
            tasks = Tasks(given.of(of), threads, dict(unread))
            for at, source in members:
                tasks.open(at, source, stack)
            found.append(_overlap(of, tasks, tell))
        done += sizes[of]
    return tuple(found)


def _tell(progress: Progress | None, done: int, nbytes: int, total: int, part: float) -> None:
    if progress is not None:
        progress("comparing", done + round(nbytes * part), total)


def _overlap(fingerprint: str, tasks: Tasks, tell: Callable[[float], None]) -> TaskOverlap:
    records = tasks.records()
    keys = sorted({key for own in records.values() for key in own}, key=lambda key: key[0])
    factored = any(record.rank for own in records.values() for record in own.values())
    with single_threaded_products() if factored else nullcontext():
        both = _counted(tasks, records, list(stretches(keys, stretch_bits(len(records)))), tell)
    kept = sorted(tasks.kept)
    return TaskOverlap(
        fingerprint,
        tuple(tasks.kept[at].name for at in kept),
        tuple(tuple(row) for row in both[np.ix_(kept, kept)].tolist()),
        tuple(tasks.missing[at] for at in sorted(tasks.missing)),
    )


def _counted(
    tasks: Tasks, records: dict[int, dict[Key, TensorDiff]], line: Sequence[Stretch], tell: Callable[[float], None]
) -> npt.NDArray[np.int64]:
    """Walk through all tensors; give the counts by the places of the diffs."""
    walks = {at: marked(own, line) for at, own in records.items()}
    both = np.zeros((1 + max(walks, default=-1),) * 2, np.int64)
    bits, done = sum(stretch.bits for stretch in line), 0
    for stretch in line:
        rows: dict[int, Row] = {}
        places = list(walks)
        for at, row in zip(places, run_all([partial(_next, walks[at]) for at in places], tasks.threads), strict=True):
            if isinstance(row, DiffpackError):
                tasks.drop(at, row)
                del walks[at]
            elif row is not None:
                rows[at] = row
        both[np.ix_(list(rows), list(rows))] += in_common(list(rows.values()), tasks.threads)
        done += stretch.bits
        tell(done / bits)
    return both


def _next(rows: Iterator[Row | None]) -> Row | DiffpackError | None:
    try:
        return next(rows)
    except DiffpackError as error:
        return error
