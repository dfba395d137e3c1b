"""Under which names a base has the tensors a diff speaks of.

Most have them under the names the diff was made from, which its rename rules lead to those of the result. A model in
memory may have them under the result's names already, or with a prefix of its own: a head is put on the body (`bert.`),
a wrapper around the model (`module.`). Which names lead to which is told by tails of names that agree with the shapes,
and between several ways by the tensors' digests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from diffpack.checkpoints import Checkpoint
from diffpack.checkpoints.base import digests_of
from diffpack.errors import UsageError
from diffpack.tensors.digests import DIGEST_BYTES
from diffpack.tensors.info import TensorInfo
from diffpack.tensors.prefix_search import cuts
from diffpack.tensors.rename import Rename, own_names, renamed
from diffpack.tensors.undo_rename import base_names

_MOST_RULES = 16
"""Prefix rules that are tried, those that pair most tensors first; and most that hold at once."""
_MOST_ALIKE = 512
"""A tail that more tensors share (`w1.weight`, of all experts) tells nothing of what stands before it."""

Needs = Mapping[str, TensorInfo | None]
"""The base tensors a diff needs: by the diff's name, with dtype and shape, where it says them."""


@dataclass(frozen=True)
class Naming:
    """One way to read a base's names: `view` leads from the diff's names to the base's.

    `rules` are those that do so, but for tensors that were found by their content. `recorded` says that the base's
    names are those of the diff's own base.
    """

    view: Mapping[str, str]
    rules: Rename
    recorded: bool
    found: Mapping[str, str] = field(default_factory=dict)

    def fits(self, base: Checkpoint, needs: Needs) -> tuple[int, int]:
        """How many needed tensors are there with their dtype and shape, and with their shape alone."""
        there = [(info, base.tensors[self.view[name]]) for name, info in needs.items() if name in self.view]
        alike = sum(info is None or info.shape == own.shape for info, own in there)
        return sum(info in (None, own) for info, own in there), alike

    def by_content(self, base: Checkpoint, needs: Needs, digest: Callable[[str], bytes | None]) -> Naming:
        """The same with needed tensors that are under no expected name found by their recorded digest.

        Only those that one tensor alone can be.
        """
        wanted = {name: info for name, info in needs.items() if name not in self.view and info is not None}
        kinds = set(wanted.values())
        taken = {self.view[name] for name in needs if name in self.view}
        free = [own for own, info in base.tensors.items() if info in kinds and own not in taken]
        alike: dict[tuple[TensorInfo, bytes], list[str]] = {}
        for own, whole in digests_of(base, free).items():
            alike.setdefault((base.tensors[own], whole[:DIGEST_BYTES]), []).append(own)
        met = {name: alike.get((info, digest(name) or b""), []) for name, info in wanted.items()}
        times = Counter(own for owns in met.values() for own in owns)
        found = {name: owns[0] for name, owns in met.items() if len(owns) == 1 and times[owns[0]] == 1}
        moved = set(found.values())
        view = {name: own for name, own in self.view.items() if own not in moved} | found
        return Naming(view, self.rules, self.recorded and not found, found)

    def called(self, name: str) -> str:
        """What the base calls a tensor of the diff, or would."""
        if name in self.view:
            return self.view[name]
        return next(iter(base_names(name, self.rules)), name)


def find_naming(
    base: Checkpoint, rename: Rename, needs: Needs, digest: Callable[[str], bytes | None], *, live: bool
) -> Naming:
    """Find how a base names what a diff with the rules `rename` needs; where no way fits, the one that fits best.

    Files have the names the diff was made from, or those of its result. A `live` model may have other prefixes, and
    where names do not tell, single tensors are found by their content. `digest` gives what the diff records of a needed
    tensor. Raises `UsageError` if the rules lead two tensors to one name.
    """
    ways: list[Naming] = []
    for rules in [rename, *(_other_rules(base, rename, needs) if live else [()])]:
        try:
            way = Naming(own_names(base.tensors, rules), rules, recorded=rules == rename)
        except UsageError:
            if not live and rules == rename:
                raise
            continue
        if way.recorded and way.fits(base, needs)[0] == len(needs):
            return way
        ways.append(way)
    if not ways:
        own_names(base.tensors, rename)  # says what is wrong
    fitting = [way for way in ways if way.fits(base, needs)[0] == len(needs)]
    if len(fitting) > 1:
        return next((way for way in fitting if _agrees(way, base, needs, digest)), fitting[0])
    if fitting:
        return fitting[0]
    if not live:
        return ways[0]
    best = max(ways, key=lambda way: way.fits(base, needs))  # of equals the first
    return best.by_content(base, needs, digest)


def _agrees(way: Naming, base: Checkpoint, needs: Needs, digest: Callable[[str], bytes | None]) -> bool:
    told = [name for name, info in needs.items() if info is not None]
    own = digests_of(base, [way.view[name] for name in told])
    return all(own[way.view[name]][:DIGEST_BYTES] == digest(name) for name in told)


def _other_rules(base: Checkpoint, rename: Rename, needs: Needs) -> Iterator[Rename]:
    """Rules from the base's names to the diff's, other than the diff's own: none at all, prefixes, several of them."""
    if rename:
        yield ()
    singles = _prefixes(base.tensors, needs)
    for rule in singles:
        yield (rule,)
    rules: Rename = ()
    rest = dict(needs)
    while rest and len(rules) < _MOST_RULES:
        found = [rule for rule in _prefixes(base.tensors, rest) if rule[0] not in dict(rules)]
        if not found:
            break
        rules = tuple(sorted([*rules, found[0]], key=lambda rule: (-len(rule[0]), rule)))
        reached = {renamed(own, rules): own for own in base.tensors}
        left = {name: info for name, info in rest.items() if name not in reached}
        if len(left) == len(rest):
            break
        rest = left
    if len(rules) > 1:
        yield rules


def _prefixes(own: Mapping[str, TensorInfo], needs: Needs) -> list[tuple[str, str]]:
    """Pairs of prefixes, ending at dots, that lead from a base's names to needed ones: those of most tensors first.

    The longest tail counts that a needed name shares with names of the base (a last name alone, "weight", only where it
    is a whole name); if shapes never agree, the names alone.
    """
    by_tail: dict[str, list[tuple[str, tuple[int, ...]]]] = {}
    for name, info in own.items():
        for prefix, tail in cuts(name):
            by_tail.setdefault(tail, []).append((prefix, info.shape))
    with_shape: Counter[tuple[str, str]] = Counter()
    by_name: Counter[tuple[str, str]] = Counter()
    for name, wanted in needs.items():
        first = True
        for prefix, tail in cuts(name):
            there = by_tail.get(tail, [])
            if "." not in tail and prefix:  # a last name alone: only a tensor of just this name
                there = [("", own[tail].shape)] if tail in own else []
            if not there or len(there) > _MOST_ALIKE:
                continue
            if first:
                by_name.update((old, prefix) for old, _ in there if old != prefix)
                first = False
            alike = [old for old, shape in there if wanted is None or shape == wanted.shape]
            if alike:
                with_shape.update((old, prefix) for old in alike if old != prefix)
                break
    rules = with_shape or by_name
    return sorted(rules, key=lambda rule: (-rules[rule], rule))[:_MOST_RULES]
