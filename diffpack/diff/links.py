"""Where a checkpoint stands in a chain of diffs: which of them lead from it to a diff's base, or on from its result."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from diffpack.diff.diff import Diff, open_diff
from diffpack.errors import DiffpackError
from diffpack.support.names import listed, printable

_MOST_BESIDE = 256
"""Diffs beside one that are looked at: a folder of more is no chain of links."""


def diffs_beside(diff: Diff) -> list[Diff]:
    """The other diffs in the folder of a diff's file, sorted by name; those that cannot be read are passed over."""
    if diff.path is None:
        return []
    found = []
    for path in sorted(diff.path.parent.glob("*.dpk"))[:_MOST_BESIDE]:
        try:
            if not path.samefile(diff.path):
                found.append(open_diff(path))
        except (DiffpackError, OSError):
            continue
    return found


def place_in_chain(diff: Diff, fingerprint: str, others: Iterable[Diff]) -> str:
    """Say to people where a checkpoint of this fingerprint stands in the chain of `diff` and others; "" if nowhere."""
    links = list(others)
    base, result = diff.manifest.base.fingerprint, diff.manifest.result.fingerprint
    if fingerprint == result:
        return f"it is the result of {diff.name} already"
    if before := _path(links, fingerprint, base):
        return f"it is an earlier link of the chain: apply {_names(before)} first"
    if result is not None and (after := _path(links, result, fingerprint)):
        return f"it is a later link of the chain, the result of {_names(after[-1:])}: {diff.name} is in it already"
    return ""


def order_of(diffs: Sequence[Diff]) -> list[Diff]:
    """Diffs in the order in which each is made on the result of the one before; nothing if they have no such order."""
    results = {item.manifest.result.fingerprint for item in diffs}
    first = [item for item in diffs if item.manifest.base.fingerprint not in results]
    if len(first) != 1:
        return []
    order, rest = first, [item for item in diffs if item is not first[0]]
    while rest:
        following = [item for item in rest if item.manifest.base.fingerprint == order[-1].manifest.result.fingerprint]
        if len(following) != 1:
            return []
        order = [*order, following[0]]
        rest = [item for item in rest if item is not following[0]]
    return order


def what_would_follow(diffs: Sequence[Diff], before: Diff, after: Diff) -> str:
    """Say to people how diffs, of which one was not made on the result of the other, become a chain; "" if not known.

    In another order, or with diffs between that are beside them.
    """
    if order := order_of(diffs):
        return f"in this order they follow one another: {_names(order)}"
    beside = diffs_beside(after)
    result = before.manifest.result.fingerprint
    missing = _names(_path(beside, result, after.manifest.base.fingerprint)) if result is not None else ""
    for item in beside:
        item.close()
    return f"between them are missing: {missing}" if missing else ""


def _names(diffs: Sequence[Diff]) -> str:
    return listed([printable(item.name) for item in diffs])


def _path(links: Sequence[Diff], start: str, end: str) -> list[Diff]:
    """The fewest diffs that lead, one after the other, from one fingerprint to another; none if there is no way."""
    ways: dict[str, list[Diff]] = {start: []}
    reached = [start]
    while reached and end not in ways:
        further = []
        for link in links:
            result = link.manifest.result.fingerprint
            if link.manifest.base.fingerprint in reached and result is not None and result not in ways:
                ways[result] = [*ways[link.manifest.base.fingerprint], link]
                further.append(result)
        reached = further
    return ways.get(end, [])
