"""What becomes of each tensor in a merge: merged, taken from one diff, left as the base has it, tied, removed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from diffpack.algebra.delta_source import Source
from diffpack.algebra.merge.per_tensor import check_patterns, matches
from diffpack.errors import UsageError
from diffpack.support.names import listed, printable
from diffpack.tensors.info import TensorInfo


@dataclass(frozen=True)
class Wishes:
    """Patterns of tensors the user has a word about, none of them empty.

    Those of `exclude` are left as the base has them, those of `take` are one diff's (by its place), those of `mix` are
    merged although each diff brings its own.
    """

    exclude: tuple[str, ...] = ()
    take: Mapping[str, int] = field(default_factory=dict)
    mix: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.exclude or self.take or self.mix)

    def check(self, names: Iterable[str]) -> None:
        """Raise `UsageError` for a pattern that fits none of the tensors the diffs speak of."""
        for what, patterns in (("exclude", self.exclude), ("take", self.take), ("mix", self.mix)):
            check_patterns(what, patterns, names)

    def excludes(self, name: str) -> bool:
        """Whether a tensor is left as the base has it."""
        return any(matches(name, pattern) for pattern in self.exclude)

    def mixes(self, name: str) -> bool:
        """Whether a tensor may be merged although each diff brings its own."""
        return any(matches(name, pattern) for pattern in self.mix)

    def taken(self, names: Iterable[str]) -> dict[str, int]:
        """The tensors taken from one diff, and its place; in the order of the patterns.

        Raises `UsageError` if one is to be taken from several.
        """
        known, found = sorted(names), dict[str, int]()
        for pattern, place in self.take.items():
            for name in known:
                if matches(name, pattern) and found.setdefault(name, place) != place:
                    raise UsageError(f"take: {printable(name)} is to be taken from several diffs")
        return found


@dataclass(frozen=True)
class Structure:
    """What a merge says besides values: tensors stored, tied, gone; and those taken from one diff, by its place."""

    stored: tuple[str, ...]
    aliases: dict[str, str]
    removed: tuple[str, ...]
    taken: dict[str, int]


def structure(sources: Sequence[Source], wishes: Wishes) -> Structure:
    """Decide which tensors are stored: a tensor is removed, or tied to another, if it is so in every diff.

    What is taken from one diff is stored, tied or removed as it is there. Raises `UsageError` for wishes that
    contradict each other or the diffs.
    """
    named = {name for source in sources for name in [*source.stored, *source.aliases, *source.removed]}
    wishes.check(named)
    taken = wishes.taken(named)
    left = {name for name in named if wishes.excludes(name)}
    if both := sorted(left & taken.keys()):
        raise UsageError(f"{listed([printable(name) for name in both])}: both excluded and taken from a diff")
    free = left | taken.keys()
    removed = set.intersection(*(set(source.removed) for source in sources)) - free
    tied = set.intersection(*(set(source.aliases.items()) for source in sources))
    aliases = {name: target for name, target in sorted(tied) if name not in free}
    stored = {name for source in sources for name in [*source.stored, *source.aliases]} - free - aliases.keys()
    for name, place in taken.items():
        source = sources[place]
        if source.stores(name):
            stored.add(name)
        elif name in source.removed:
            removed.add(name)
        elif name in source.aliases:
            aliases[name] = source.aliases[name]
        elif _new(name, sources):
            raise UsageError(f"{source.diff.name}: has no {printable(name)}, which is to be taken from it")
    for name, target in aliases.items():
        _check_tie(name, target, sources, taken, left)
    return Structure(tuple(sorted(stored)), dict(sorted(aliases.items())), tuple(sorted(removed)), taken)


def _new(name: str, sources: Sequence[Source]) -> bool:
    """Whether a tensor is new in the diffs that store it."""
    infos = [source.infos(name) for source in sources if source.stores(name)]
    return any(before is None for _, before in infos)


def _check_tie(
    name: str, target: str, sources: Sequence[Source], taken: Mapping[str, int], left: Iterable[str]
) -> None:
    """Raise `UsageError` if a tensor is tied to one that will not be what it is tied to."""
    where, other = printable(name), printable(target)
    if name in taken and taken.get(target) != taken[name]:
        touched = [source for source in sources if source.stores(target)]
        if target in taken or touched:
            raise UsageError(f"{where} is tied to {other} in {sources[taken[name]].diff.name}: take that from it, too")
    if target in left and _new(target, sources):
        raise UsageError(f"{where} is tied to {other}, which is excluded and not in the base: exclude both")


def changed_infos(source: Source) -> dict[str, tuple[TensorInfo, TensorInfo | None]]:
    """The records that change a tensor's dtype or shape, or bring a new one."""
    infos = {name: source.infos(name) for name in source.stored}
    return {name: (info, before) for name, (info, before) in infos.items() if before != info}
