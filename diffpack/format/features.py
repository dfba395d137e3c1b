"""What a file may require of its reader, and what a writer may be asked for."""

from __future__ import annotations

from diffpack.format import streams
from diffpack.format.positions import POSITION_CODINGS, PositionCoding
from diffpack.format.values import VALUE_CODINGS, ValueCoding

UNSEALED = "unsealed"
"""A lossy diff whose result nobody knows yet."""
_CODINGS: tuple[PositionCoding | ValueCoding, ...] = (*POSITION_CODINGS.values(), *VALUE_CODINGS.values())
FEATURES = {UNSEALED: 1, **streams.SINCE} | {coding.id: coding.since for coding in _CODINGS if coding.since is not None}
"""What a file may require of this reader, and the minor version of the format that brought it."""
PROFILES = ("compact", "portable", "smallest")
"""What a writer may be asked for: pco streams, zstd alone, or pco with exact changes coded against the base."""
