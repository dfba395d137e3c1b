"""What a file may require of its reader, and what a writer may be asked for."""

from __future__ import annotations

from collections.abc import Iterable

from diffpack.format import streams
from diffpack.format.manifest import Group
from diffpack.format.positions import POSITION_CODINGS, PositionCoding
from diffpack.format.values import VALUE_CODINGS, ValueCoding

UNSEALED = "unsealed"
"""A lossy diff whose result nobody knows yet."""
_CODINGS: tuple[PositionCoding | ValueCoding, ...] = (*POSITION_CODINGS.values(), *VALUE_CODINGS.values())
FEATURES = {UNSEALED: 1, **streams.SINCE} | {coding.id: coding.since for coding in _CODINGS if coding.since is not None}
"""What a file may require of this reader, and the minor version of the format that brought it."""


def required_features(groups: Iterable[Group]) -> tuple[str, ...]:
    """Give the features that the codings of groups need a reader to know, sorted."""
    used = {coding for group in groups for coding in (group.position_coding_id, group.value_coding_id)}
    return tuple(sorted(used & FEATURES.keys()))


PROFILES = ("compact", "portable", "smallest")
"""What a writer may be asked for: pco streams, zstd alone, or pco with exact changes coded against the base."""
