"""Which diffs belong together: all that come from one base, and of those the links of chains.

A diff whose base is the result of another one is the next version of that model, not a task of another base.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from diffpack.diff.stats import DiffStats

ADAPTER_SHARE = 0.036
"""What a task costs with adapters, as a part of the base (Houlsby et al. 2019, abstract)."""


@dataclass(frozen=True)
class Member:
    """A diff among those of its base; `parent` is the diff it continues, None if it changes the base itself.

    `depth` counts the diffs before it in its chain. The `latest` is continued by none. `level` is how far its name is
    set in where chains are shown: one for all that continue a task, one more after each fork.
    """

    diff: DiffStats
    parent: DiffStats | None
    depth: int
    latest: bool
    level: int = 0


class Costs(ABC):
    """What several diffs cost together, and the bases they come from."""

    @abstractmethod
    def _each(self) -> Iterable[DiffStats]:
        """The diffs."""

    @property
    @abstractmethod
    def base_bytes(self) -> int:
        """Bytes of the tensors of the bases."""

    @property
    def nbytes(self) -> int:
        """Bytes of the files."""
        return sum(item.nbytes for item in self._each())

    @property
    def side_file_bytes(self) -> int:
        """Of these bytes those of side files."""
        return sum(item.side_file_bytes for item in self._each())

    @property
    def weight_bytes(self) -> int:
        """The others."""
        return self.nbytes - self.side_file_bytes

    @property
    def full_bytes(self) -> int:
        """Bytes of all results as full copies."""
        return sum(item.result_bytes for item in self._each())

    @property
    def share_of_base(self) -> float:
        """Bytes of the files / bytes of the bases."""
        return self.nbytes / self.base_bytes if self.base_bytes else 0.0

    @property
    def weight_share(self) -> float:
        """Bytes of the files without side files / bytes of the bases."""
        return self.weight_bytes / self.base_bytes if self.base_bytes else 0.0


@dataclass(frozen=True)
class Family(Costs):
    """The diffs of one base, each after the one it continues.

    `models` are the latest results, of which a chain has one; each member is a version of a model. What is compared
    with full copies and adapters is what the weights cost, without side files.
    """

    members: tuple[Member, ...]

    def _each(self) -> Iterable[DiffStats]:
        return (item.diff for item in self.members)

    @property
    def base_fingerprint(self) -> str:
        """The content hash of the base all of them come from."""
        return self.members[0].diff.base_fingerprint

    @property
    def base_name(self) -> str | None:
        """What people call it, if one of its diffs says so."""
        return next((item.diff.base_name for item in self._roots if item.diff.base_name), None)

    @property
    def _roots(self) -> Iterator[Member]:
        return (item for item in self.members if item.parent is None)

    @property
    def base_bytes(self) -> int:
        """Bytes of its tensors."""
        return self.members[0].diff.base_bytes

    @property
    def base_entries(self) -> int:
        """Entries of its tensors."""
        return self.members[0].diff.base_entries

    @property
    def models(self) -> int:
        """How many of the results no other diff continues."""
        return sum(item.latest for item in self.members)

    @property
    def versions(self) -> int:
        """How many results there are."""
        return len(self.members)

    @property
    def stored_bytes(self) -> int:
        """Bytes of the base with all members, without side files."""
        return self.base_bytes + self.weight_bytes

    @property
    def adapter_bytes(self) -> int:
        """Bytes of the base with an adapter of 3.6 % of it for each member."""
        return self.base_bytes + round(ADAPTER_SHARE * self.base_bytes) * self.versions

    def multiple(self, nbytes: int) -> float:
        """Bytes as a multiple of the base's."""
        return nbytes / self.base_bytes if self.base_bytes else 0.0

    @property
    def break_even(self) -> int | None:
        """With how many members like these, on average, the base and the diffs are less than as many full copies.

        None where a diff is no smaller than a full copy, so that they never are.
        """
        saved = self.full_bytes - self.weight_bytes
        if saved <= 0:
            return None
        return self.base_bytes * self.versions // saved + 1


def families_of(diffs: Sequence[DiffStats]) -> tuple[Family, ...]:
    """Put diffs together by the base they come from, in their order; each stands after the one it continues.

    Where undos make a circle (base to task to base), it begins at the first diff of it that is given.
    """
    results = {item.result_fingerprint for item in diffs if item.result_fingerprint != item.base_fingerprint}
    parents: dict[int, int | None] = {}
    waiting = [at for at, item in enumerate(diffs) if item.base_fingerprint not in results]
    reached: dict[str, int | None] = {diffs[at].base_fingerprint: None for at in waiting}
    children: dict[str, list[int]] = {}
    for at, item in enumerate(diffs):
        children.setdefault(item.base_fingerprint, []).append(at)
    while len(parents) < len(diffs):
        if not waiting:  # what is left runs in circles
            first = next(at for at in range(len(diffs)) if at not in parents)
            reached[diffs[first].base_fingerprint] = None
            waiting = list(children[diffs[first].base_fingerprint])
        following: list[int] = []
        for at in waiting:
            parents[at] = reached[diffs[at].base_fingerprint]
            result = diffs[at].result_fingerprint
            if result is not None and result not in reached:
                reached[result] = at
                following += children.get(result, [])
        waiting = following
    return tuple(_families(diffs, parents))


def _families(diffs: Sequence[DiffStats], parents: dict[int, int | None]) -> Iterator[Family]:
    after: dict[int | None, list[int]] = {}
    for at in range(len(diffs)):
        after.setdefault(parents[at], []).append(at)
    bases: dict[str, list[int]] = {}
    for at in after.get(None, []):
        bases.setdefault(diffs[at].base_fingerprint, []).append(at)
    for roots in bases.values():
        members: list[Member] = []
        stack = [(at, 0, 0) for at in reversed(roots)]
        while stack:
            at, depth, level = stack.pop()
            parent, following = parents[at], after.get(at, [])
            members.append(Member(diffs[at], None if parent is None else diffs[parent], depth, not following, level))
            inner = level + (depth == 0 or len(following) > 1)
            stack += [(child, depth + 1, inner) for child in reversed(following)]
        yield Family(tuple(members))
