"""The relative L2 errors that a lossy diff records, in millionths: overall and of each float record."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from msgspec.structs import replace

from diffpack.format.manifest import MILLIONTHS, Manifest

ERROR = "error"
"""What the recipe of a lossy diff says under this word if its error is not known: why."""


def with_errors(manifest: Manifest, missed: Mapping[str, float], moved: Mapping[str, float]) -> Manifest:
    """The manifest with its errors: norms by name of what the result misses, divided by those of what was to change.

    Records that have no norms are exact.
    """

    def of(names: Sequence[str]) -> tuple[int, ...]:
        return tuple(_relative([missed.get(name, 0.0)], [moved.get(name, 0.0)]) for name in names)

    groups = tuple(
        replace(group, errors=of(group.names)) if group.tensor_dtype.arithmetic else group for group in manifest.groups
    )
    return replace(manifest, groups=groups, error=_relative(missed.values(), moved.values()))


def _relative(missed: Iterable[float], moved: Iterable[float]) -> int:
    moved = list(moved)
    largest = max(moved, default=0.0)
    if not largest:
        return 0
    return round(MILLIONTHS * math.hypot(*(x / largest for x in missed)) / math.hypot(*(x / largest for x in moved)))
