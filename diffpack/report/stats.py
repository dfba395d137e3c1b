"""stats: what diffs change and what they cost, each and together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from diffpack.checkpoints import Checkpoint
from diffpack.diff.diff import DiffLike
from diffpack.diff.extent import other_names
from diffpack.diff.stats import DiffStats, diff_stats
from diffpack.errors import DiffpackError, UsageError, WrongBaseError
from diffpack.report.families import Costs, Family, families_of
from diffpack.report.found import called, each_diff
from diffpack.report.given_base import BaseLike, GivenBase, opened
from diffpack.report.row_of import diff_row
from diffpack.report.rows import plain
from diffpack.support.memory import memory_told
from diffpack.support.names import natural

SORTS: Mapping[str, Callable[[DiffStats], Any]] = {
    "name": lambda item: natural(item.name),
    "size": lambda item: -item.nbytes,
    "changed": lambda item: -item.changed,
    "density": lambda item: -item.density,
    "share": lambda item: -item.weight_share,
}
"""Orders of diffs: by name, else the largest first."""


@dataclass(frozen=True)
class Problem:
    """A diff that could not be counted: `nbytes` of its file (None if that is not known), and why."""

    name: str
    nbytes: int | None
    error: DiffpackError


@dataclass(frozen=True)
class Stats(Costs):
    """Several diffs, and what storing them with their bases costs against storing full copies.

    Bases that are the result of another diff are not counted: that is stored by the diff.
    """

    diffs: tuple[DiffStats, ...]
    problems: tuple[Problem, ...] = ()

    @cached_property
    def families(self) -> tuple[Family, ...]:
        """The diffs by the base they come from, chains in their order."""
        return families_of(self.diffs)

    def _each(self) -> Iterable[DiffStats]:
        return self.diffs

    @property
    def base_bytes(self) -> int:
        """Bytes of the distinct bases."""
        return sum(item.base_bytes for item in self.families)

    def rows(self) -> list[dict[str, Any]]:
        """Each diff as a dictionary of numbers, texts and lists, as `diffpack stats --json` prints it.

        What makes rows of a data frame: `pandas.DataFrame(stats.rows())`.
        """
        return [plain(diff_row(member)) for family in self.families for member in family.members]

    def sorted(self, by: str) -> Stats:
        """The same with the diffs in another order (`SORTS`); the links of a chain stay together, in theirs.

        Raises `UsageError` for another word.
        """
        if by not in SORTS:
            raise UsageError(f"diffs are sorted by {', '.join(SORTS)}, not by {by!r}")
        return Stats(tuple(sorted(self.diffs, key=SORTS[by])), self.problems)

    def fitting(self, budget: int) -> int:
        """How many more diffs like these, on average, fit into so many bytes beside the bases and the diffs there are.

        Negative is how many are too many. Side files count: they are stored.
        """
        if not self.nbytes:
            return 0
        return (budget - self.base_bytes - self.nbytes) * len(self.diffs) // self.nbytes

    def _repr_html_(self) -> str:
        """What notebooks show: what bases and diffs cost together, and the first diffs."""
        from diffpack.report.html.fragment import summary  # with jinja2, which counting does not need

        return summary(self.families, len(self.problems))


@memory_told
def stats(
    diffs: DiffLike | Sequence[DiffLike],
    base: BaseLike = None,
    *,
    tensors: bool = True,
    keep_going: bool = False,
    threads: int | None = None,
) -> Stats:
    """Count what each diff changes and what it costs. A path may be a folder: all its `*.dpk` are meant.

    With `tensors` each tensor is counted, which decodes what the manifest does not count, but needs no base; without,
    manifests alone are read, and `DiffStats.changed` may be the most it can be. With `base` the diffs that continue no
    other one must be of that base.

    Raises `UsageError` for a folder without diffs, `WrongBaseError`, `CorruptFileError`, `UnsupportedFormatError`; with
    `keep_going` what is wrong with one diff of several becomes one of the `problems`.
    """
    counted: list[tuple[DiffLike, DiffStats]] = []
    problems: list[Problem] = []
    for source in each_diff(diffs):
        try:
            counted.append((source, _counted(source, tensors=tensors)))
        except DiffpackError as error:
            if not keep_going:
                raise
            problems.append(Problem(*called(source), error))
    found = [item for _, item in counted]
    if base is not None:
        others = _of_other_bases(counted, GivenBase.once(base, threads))
        if others and not keep_going:
            raise next(iter(others.values()))
        problems += [Problem(found[at].name, found[at].nbytes, error) for at, error in others.items()]
        found = [item for at, item in enumerate(found) if at not in others]
    return Stats(tuple(found), tuple(problems))


def _counted(source: DiffLike, *, tensors: bool) -> DiffStats:
    """Count one diff; one that is opened here is closed again, so that thousands can be counted."""
    with opened(source) as diff:
        return diff_stats(diff, tensors=tensors)


def _of_other_bases(counted: Sequence[tuple[DiffLike, DiffStats]], given: GivenBase) -> dict[int, WrongBaseError]:
    """Which diffs come from another base than this, by their places, and what is to be said of each."""
    checkpoint, actual = given.checkpoint, given.fingerprint
    assert checkpoint is not None
    places = {id(item): at for at, (_, item) in enumerate(counted)}
    wrong: dict[int, WrongBaseError] = {}
    for family in families_of([item for _, item in counted]):
        if family.base_fingerprint == actual:
            continue
        for member in family.members:
            at = places[id(member.diff)]
            with_names = "" if member.parent else _other_names(counted[at][0], checkpoint)
            expected = family.base_fingerprint
            wrong[at] = WrongBaseError(
                f"{checkpoint.source}: not the base of {member.diff.name} "
                f"(fingerprint expected {expected}, found {actual}){with_names}"
            )
    return dict(sorted(wrong.items()))


def _other_names(source: DiffLike, checkpoint: Checkpoint) -> str:
    with opened(source) as diff:
        return other_names(diff, checkpoint)
