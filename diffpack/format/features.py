"""What a file may require of its reader, and what a writer may be asked for."""

from __future__ import annotations

from diffpack.format import streams
from diffpack.format.positions import POSITION_CODINGS, PositionCoding
from diffpack.format.values import VALUE_CODINGS, ValueCoding

UNSEALED = "unsealed"
"""A lossy diff whose result nobody knows yet."""
PATHS = "paths"
"""Files in folders of the model folder."""
CODE = "code"
"""Side files that are code."""
COPIES = "copies"
"""Tensors of the base under further names."""
SLICES = "slices"
"""Tensors put together from slices of the base's."""
LOWRANK = "lowrank"
"""Records with low-rank factors."""
STRUCTURE = "structure"
"""What an HDF5 file holds beside its tensors; a reader that does not know it can do without."""
_CODINGS: tuple[PositionCoding | ValueCoding, ...] = (*POSITION_CODINGS.values(), *VALUE_CODINGS.values())
FEATURES = {UNSEALED: 1, PATHS: 2, CODE: 2, COPIES: 2, SLICES: 2, LOWRANK: 2, **streams.SINCE} | {
    coding.id: coding.since for coding in _CODINGS if coding.since is not None
}
"""What a file may require of this reader, and the minor version of the format that brought it."""
WITHOUT_BASE, CONDITIONED = "compact", "smallest"
"""Profiles of the same streams: exact changes of the second are coded against the base."""
PROFILES = (WITHOUT_BASE, "portable", CONDITIONED)
"""What a writer may be asked for: pco streams, zstd alone, or pco with exact changes coded against the base."""
