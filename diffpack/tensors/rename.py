"""Rename rules: what a tensor of the base is called in the result, and how such rules are found and chained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from diffpack.errors import UsageError
from diffpack.tensors.info import TensorInfo

Rename = tuple[tuple[str, str], ...]
"""(old prefix, new prefix) pairs; the first whose old prefix fits is taken."""


def renamed(name: str, rename: Sequence[tuple[str, str]]) -> str:
    """The name a base tensor has under the rename rules."""
    for old, new in rename:
        if name.startswith(old):
            return new + name[len(old) :]
    return name


def own_names(
    names: Iterable[str], rename: Sequence[tuple[str, str]], copies: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Map new names to the base's own names.

    `copies` leads from further names to those, after renaming, of the tensors they are copies of; a copy takes the
    place of a tensor of its name. Raises `UsageError` if two tensors get one name, or there is nothing to copy.
    """
    view: dict[str, str] = {}
    for name in names:
        new = renamed(name, rename)
        if new in view:
            raise UsageError(f"renaming gives both {view[new]!r} and {name!r} the name {new!r}")
        view[new] = name
    found = {}
    for name, source in (copies or {}).items():
        if source not in view:
            raise UsageError(f"{name!r} is a copy of {source!r}, which is missing")
        found[name] = view[source]
    return view | found


def find_rename(base: Mapping[str, TensorInfo], tuned: Mapping[str, TensorInfo]) -> Rename:
    """Find the prefix rule that pairs most tensors by name, dtype and shape, if any beats no rule at all.

    Candidates are the prefixes, ending at a dot, that one side has before a name of the other side.
    """
    if not base or not tuned:
        return ()
    best: Rename = ()
    best_score = _score(base, tuned, ())
    if best_score == len(tuned):
        return ()
    for rule in sorted(_candidates(base, tuned)):
        score = _score(base, tuned, (rule,))
        if score > best_score:
            best, best_score = (rule,), score
    return best


def _candidates(base: Mapping[str, TensorInfo], tuned: Mapping[str, TensorInfo]) -> set[tuple[str, str]]:
    """Every pair of prefixes that turns some base name into a tuned name with the same tail and shape."""
    tails: dict[str, set[str]] = {}
    for name in tuned:
        for tail, prefix in _tails(name):
            tails.setdefault(tail, set()).add(prefix)
    rules: dict[tuple[str, str], int] = {}
    for name in base:
        for tail, prefix in _tails(name):
            for other in tails.get(tail, ()):
                if prefix != other and not (prefix and other):
                    rules[prefix, other] = rules.get((prefix, other), 0) + 1
    return set(sorted(rules, key=lambda rule: -rules[rule])[:_MOST_CANDIDATES])


_MOST_CANDIDATES = 16


def _tails(name: str) -> list[tuple[str, str]]:
    """The (tail, prefix) pairs of the whole name and of up to three leading components cut off."""
    cuts, at = [(name, "")], 0
    for _ in range(3):
        at = name.find(".", at) + 1
        if at == 0:
            break
        cuts.append((name[at:], name[:at]))
    return cuts


def _score(base: Mapping[str, TensorInfo], tuned: Mapping[str, TensorInfo], rules: Rename) -> int:
    try:
        view = own_names(base, rules)
    except UsageError:
        return -1
    return sum(name in view and base[view[name]].shape == info.shape for name, info in tuned.items())


def free_names(wanted: Mapping[str, str], taken: set[str]) -> dict[str, str]:
    """Names that nothing has: those wanted (by key) where they are free, else longer ones."""
    free = {}
    for key, name in wanted.items():
        while name in taken:
            name += ".removed"
        taken.add(name)
        free[key] = name
    return free


def whole_names(view: Mapping[str, str]) -> Rename:
    """Rules that do just this to these names: each is a whole name, and of those that fit the longest is first."""
    return tuple(sorted(view.items(), key=lambda rule: (-len(rule[0]), rule)))


def compose_rename(first: Rename, second: Rename) -> Rename:
    """The rules that do to every name what the first and then the second do (of each, the first that fits)."""
    rules: list[tuple[str, str]] = []
    for old, new in first:
        rules += _after(old, new, second)
    rules += second
    kept: list[tuple[str, str]] = []
    for old, new in rules:
        if not any(old.startswith(earlier) for earlier, _ in kept):  # else an earlier rule takes all its names
            kept.append((old, new))
    while kept and kept[-1][0] == kept[-1][1]:  # a last rule that changes nothing
        kept.pop()
    return tuple(kept)


def _after(old: str, new: str, second: Rename) -> list[tuple[str, str]]:
    """The rules for names that the rule old -> new takes, followed by the second rules."""
    rules: list[tuple[str, str]] = []
    for source, target in second:
        if new.startswith(source):
            return [*rules, (old, target + new[len(source) :])]
        if source.startswith(new):
            rules.append((old + source[len(new) :], target))
    return [*rules, (old, new)]
