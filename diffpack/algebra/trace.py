"""Where each tensor of a chain of diffs comes from: the base tensor and the records on its way."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from diffpack.diff.diff import Diff
from diffpack.errors import BaseNeededError
from diffpack.support.names import listed, printable
from diffpack.tensors.name_rules import rules_for
from diffpack.tensors.rename import Rename, Renamer, compose_rename, free_names


@dataclass(frozen=True)
class Lineage:
    """A tensor: the base tensor it started as (None: zero bits), and the records, as (link, name), that changed it.

    `origin` is the base tensor's name under the rename rules of the chain so far; where the base is at hand, its own
    name until the whole chain is known. Equal lineages are equal tensors.
    """

    origin: str | None
    records: tuple[tuple[int, str], ...] = ()


@dataclass
class Trace:
    """What is known after some links of a chain.

    Every name that stands nowhere here is a base tensor nothing happened to. `known` has None for a name that is
    gone. `origins` are base tensors, as renamed so far, that were met; those in `doubtful` may not exist in the base.
    `before` has, where the base is at hand, what each record (link, name) changes.
    """

    known: dict[str, Lineage | None] = field(default_factory=dict)
    origins: set[str] = field(default_factory=set)
    doubtful: set[str] = field(default_factory=set)
    rename: Rename = ()
    before: dict[tuple[int, str], Lineage] = field(default_factory=dict)

    def lineage(self, name: str) -> Lineage:
        """A present tensor's lineage."""
        lineage = self.known.get(name)
        return Lineage(name) if lineage is None else lineage

    @property
    def removed(self) -> list[str]:
        """Base tensors, as renamed, whose name no tensor has any more."""
        return sorted(name for name in self.origins if name in self.known and self.known[name] is None)


def trace(diffs: Sequence[Diff], names: Iterable[str] | None = None) -> Trace:
    """Follow every tensor through a chain; `names` are the base's own names where the base is at hand.

    Raises `BaseNeededError` where only the base can tell which tensors there are.
    """
    if names is None:
        state = Trace()
        for link, diff in enumerate(diffs):
            _follow(state, link, diff, certain=False)
        return state
    own = sorted(names)
    state = Trace({name: Lineage(name) for name in own})
    for link, diff in enumerate(diffs):
        _follow(state, link, diff, certain=True)
    return _settled(state, own)


def _settled(state: Trace, own: Sequence[str]) -> Trace:
    """The trace of a known base with its origins as the chain's rename rules call them."""
    called = Renamer(state.rename)
    view = {name: called(name) for name in own}
    rename = state.rename
    if len(set(view.values())) < len(view):
        view = _apart(state, view)
        rename = rules_for(view)
    known: dict[str, Lineage | None] = dict.fromkeys(view.values())
    for name, lineage in state.known.items():
        if lineage is not None:
            known[name] = _called(lineage, view)
    before = {key: _called(lineage, view) for key, lineage in state.before.items()}
    return Trace(known, set(view.values()), set(), rename, before)


def _called(lineage: Lineage, view: dict[str, str]) -> Lineage:
    return Lineage(None if lineage.origin is None else view[lineage.origin], lineage.records)


def _apart(state: Trace, view: dict[str, str]) -> dict[str, str]:
    """Give every base tensor a name of its own: one that is gone must not keep the name of one that came later."""
    kept = {own: name for own, name in view.items() if (current := state.known.get(name)) and current.origin == own}
    taken = {*kept.values(), *(name for name, lineage in state.known.items() if lineage)}
    return kept | free_names({own: name for own, name in view.items() if own not in kept}, taken)


def _follow(state: Trace, link: int, diff: Diff, *, certain: bool) -> None:
    manifest = diff.manifest
    if manifest.rename:
        _rename(state, diff, certain)
    before = {name: state.lineage(name) for name in [*diff, *manifest.aliases.values()]}
    if not certain:
        _meet(state, diff)
    if certain:
        state.before |= {(link, name): before[name] for name, record in diff.items() if record.base is not None}
    for name in manifest.removed:
        state.known[name] = None
    for name, record in diff.items():
        own = (link, name)
        lineage = before[name]
        grown = Lineage(None, (own,)) if record.base is None else Lineage(lineage.origin, (*lineage.records, own))
        state.known[name] = grown
    for name, target in manifest.aliases.items():
        state.known[name] = state.lineage(target) if target in diff else before[target]


def _rename(state: Trace, diff: Diff, certain: bool) -> None:
    rules = diff.manifest.rename
    called = Renamer(rules)
    gone = sorted(name for name in state.origins if name in state.known and state.known[name] is None)
    if gone and not certain:
        which = listed([printable(name) for name in gone])
        raise BaseNeededError(
            f"{diff.name}: renames tensors after others were removed ({which}): give the base, which tells them apart"
        )
    state.rename = compose_rename(state.rename, rules)
    state.origins = {called(name) for name in state.origins}
    state.doubtful = {called(name) for name in state.doubtful}
    moved: dict[str, Lineage | None] = {}
    for name, lineage in state.known.items():
        if lineage is None:
            continue
        keep = certain or lineage.origin is None
        origin = lineage.origin if keep else called(lineage.origin or "")
        moved[called(name)] = Lineage(origin, lineage.records)
    for name in gone:
        moved[called(name)] = None
    state.known = moved


def _meet(state: Trace, diff: Diff) -> None:
    """Remember the base tensors a link speaks of for the first time."""
    manifest = diff.manifest
    sure = [name for name, record in diff.items() if record.base is not None]
    sure += [*manifest.removed, *(name for name in manifest.aliases.values() if name not in diff)]
    state.origins |= {name for name in sure if name not in state.known}
    added = added_names(diff)
    for name in [name for name, record in diff.items() if record.base is None] + list(manifest.aliases):
        if name not in state.known and (added is None or name not in added):
            state.origins.add(name)
            if added is None:
                state.doubtful.add(name)


def added_names(diff: Diff) -> frozenset[str] | None:
    """The names of the result that the base does not have; None if the diff alone cannot tell.

    A new record or an alias may replace a base tensor of its name; the numbers of tensors tell whether all or none do.
    """
    manifest = diff.manifest
    candidates = [name for name, record in diff.items() if record.base is None] + list(manifest.aliases)
    added = manifest.result.tensors - manifest.base.tensors + len(manifest.removed)
    if added == len(candidates):
        return frozenset(candidates)
    return frozenset() if added == 0 else None
