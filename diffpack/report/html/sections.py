"""What is shown of the diffs of one base."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count

from diffpack.report.contents.histograms import DiffHistograms
from diffpack.report.contents.overlap import TaskOverlap
from diffpack.report.families import Family, Member
from diffpack.report.html.bars import Histograms, histograms
from diffpack.report.html.heat import HeatMap, heat_map
from diffpack.report.html.labels import Labels
from diffpack.report.html.lineage import Link, lineage
from diffpack.report.html.matrix import Matrix, matrix
from diffpack.report.row_of import diff_row, family_row
from diffpack.report.rows import DiffRow, FamilyRow

PARTS = (
    ("factors", "factor_bytes"),
    ("positions", "position_bytes"),
    ("values", "value_bytes"),
    ("manifest", "manifest_bytes"),
    ("layout", "layout_bytes"),
    ("side files", "side_file_bytes"),
    ("frame", "frame_bytes"),
)
"""The bytes of a file, in the order they are drawn: what they are called, and their member of a row."""

SHORT = 12
"""Digits of a fingerprint that tell bases apart."""


@dataclass(frozen=True)
class Task:
    """A diff on the page: its number there, its row, what it is called, and whether it is larger than it may be."""

    number: int
    row: DiffRow
    label: str
    continues: str | None
    over: bool


@dataclass(frozen=True)
class Group:
    """Diffs that belong to one model: a single one, or one and all that continue it, with their history."""

    tasks: tuple[Task, ...]
    links: tuple[Link, ...]
    open_lists: int

    @property
    def models(self) -> int:
        """How many of them no other one continues."""
        return sum(item.row.latest for item in self.tasks)

    @property
    def nbytes(self) -> int:
        """Bytes of all of them."""
        return sum(item.row.bytes for item in self.tasks)


@dataclass(frozen=True)
class Section:
    """A base with its diffs; what was not asked for, or needs tensors that were not counted, is None or empty.

    Overlaps are those of diffs that change the same state: the base, or the result of one of the diffs; each with what
    that is called.
    """

    number: int
    label: str
    row: FamilyRow
    groups: tuple[Group, ...]
    heat: HeatMap | None
    overlaps: tuple[tuple[str, Matrix], ...]
    histograms: Histograms | None

    @cached_property
    def tasks(self) -> tuple[Task, ...]:
        """All diffs, in order."""
        return tuple(item for group in self.groups for item in group.tasks)

    @property
    def chains(self) -> tuple[Group, ...]:
        """Models with a history."""
        return tuple(group for group in self.groups if len(group.tasks) > 1)

    @cached_property
    def parts(self) -> tuple[tuple[str, str], ...]:
        """Of `PARTS` those that some file has bytes in."""
        rows = [item.row for item in self.tasks]
        return tuple((what, member) for what, member in PARTS if any(getattr(row, member) for row in rows))

    @property
    def sums(self) -> tuple[tuple[str, str, int], ...]:
        """The same with the bytes of all files together."""
        return tuple((what, name, sum(getattr(item.row, name) for item in self.tasks)) for what, name in self.parts)

    def most(self, member: str) -> float:
        """The largest number of a member of the rows."""
        return max(float(getattr(item.row, member)) for item in self.tasks)


def sections(
    families: Sequence[Family],
    labels: Labels,
    over: Collection[str],
    overlaps: Sequence[TaskOverlap],
    steps: Sequence[DiffHistograms],
) -> tuple[Section, ...]:
    """Lay out the diffs of each base; `over` names those that are larger than they may be."""
    numbers = count()
    drawn = {item.name: item for item in steps}
    shared = {item.base_fingerprint: item for item in overlaps}
    calls = Counter(map(_called, families))
    made = []
    for at, family in enumerate(families):
        names = list(dict.fromkeys(item.diff.name for item in family.members))
        label = _called(family) if calls[_called(family)] == 1 else f"{_called(family)} {_short(family)}"
        made.append(
            Section(
                number=at,
                label=label,
                row=family_row(family),
                groups=tuple(_group(tree, labels, over, numbers) for tree in _trees(family)),
                heat=heat_map([item.diff for item in family.members]),
                overlaps=tuple(_matrices(family, label, labels, shared)),
                histograms=histograms(drawn[name] for name in names if name in drawn),
            )
        )
    return tuple(made)


def _short(family: Family) -> str:
    return family.base_fingerprint[:SHORT]


def _called(family: Family) -> str:
    return family.base_name or _short(family)


def _trees(family: Family) -> Iterator[list[Member]]:
    """The members, cut before each that changes the base itself."""
    tree: list[Member] = []
    for item in family.members:
        if item.parent is None and tree:
            yield tree
            tree = []
        tree.append(item)
    yield tree


def _matrices(
    family: Family, label: str, labels: Labels, shared: Mapping[str, TaskOverlap]
) -> Iterator[tuple[str, Matrix]]:
    """The overlaps of a family: of those that change the base, then of those that continue the same diff."""
    states: dict[str, tuple[str, int]] = {}
    for item in family.members:
        of = label if item.parent is None else labels[item.parent.name]
        states.setdefault(item.diff.base_fingerprint, (of, item.diff.base_entries))
    for state, (of, entries) in states.items():
        if state in shared:
            yield of, matrix(shared[state], entries)


def _group(tree: Sequence[Member], labels: Labels, over: Collection[str], numbers: Iterator[int]) -> Group:
    tasks = [
        Task(
            next(numbers),
            diff_row(item),
            labels[item.diff.name],
            None if item.parent is None else labels[item.parent.name],
            item.diff.name in over,
        )
        for item in tree
    ]
    return Group(tuple(tasks), *lineage(tree))
