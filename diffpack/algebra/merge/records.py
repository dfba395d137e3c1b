"""Records that are taken over as one diff has them, and whether several diffs have the same."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from diffpack.algebra.delta_source import Source
from diffpack.algebra.kept import kept_entry
from diffpack.algebra.steps import gathered
from diffpack.diff.entries import Entry
from diffpack.errors import UsageError
from diffpack.support.names import printable


def record_entry(name: str, source: Source) -> Entry:
    """The record a diff has of a tensor, to be written as it is. Raises `UsageError` if the tensor is tied there."""
    if not source.stores(name):
        raise UsageError(
            f"{source.diff.name}: {printable(name)} is tied there and not in every diff: it cannot be merged"
        )
    return kept_entry(source.diff, source.record(name), name)


def are_one(name: str, sources: Sequence[Source]) -> bool:
    """Whether all diffs make the same of a tensor: by the recorded digests, else by what the records hold."""
    if not all(source.stores(name) for source in sources):
        return False
    digests = {source.digests(name)[1] for source in sources}
    if None not in digests:
        return len(digests) == 1
    first, *others = (record_entry(name, source) for source in sources)
    return all(same_change(first, other) for other in others)


def same_change(first: Entry, other: Entry) -> bool:
    """Whether two records of one tensor hold the same numbers in the same coding."""
    if first.value_coding is not other.value_coding or first.scale != other.scale:
        return False
    pairs = zip(*(gathered(entry.parts, entry.info.dtype) for entry in (first, other)), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)
