"""How far a lossy result is from the tuned checkpoint: relative L2 error, overall and of each record.

The error is that of the result itself, rounded as apply rounds it: |result - tuned| / |tuned - reference|.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from msgspec.structs import replace

from diffpack.extraction.scan.norms import difference_norm, norm_of_norms
from diffpack.extraction.scan.scan import Scan
from diffpack.format.manifest import MILLIONTHS, Manifest
from diffpack.tensors.dtypes import Words


class Distortion:
    """Adds errors up while a result is produced: `see` is what `Result.run` writes to.

    `moved` is what `norms` gives for the scans.
    """

    def __init__(self, scans: Iterable[Scan], moved: Mapping[str, float]) -> None:
        self._scans = {item.pair.name: item for item in scans if item.pair.name in moved}
        self._moved = moved
        self._missed = dict.fromkeys(self._scans, 0.0)

    def see(self, name: str, offset: int, words: Words) -> None:
        """Take the words of a result tensor from a byte offset on."""
        item = self._scans.get(name)
        if item is not None:
            start = offset // words.itemsize
            tuned = item.tuned[start : start + words.size]
            missed = difference_norm(words, tuned, item.pair.info.dtype)
            self._missed[name] = norm_of_norms(self._missed[name], missed)

    def recorded(self, manifest: Manifest) -> Manifest:
        """The manifest with the errors that were seen: overall and of each float record."""
        groups = tuple(
            replace(group, errors=self._of(group.names)) if group.tensor_dtype.arithmetic else group
            for group in manifest.groups
        )
        return replace(manifest, groups=groups, error=_relative(self._missed.values(), self._moved.values()))

    def _of(self, names: Sequence[str]) -> tuple[int, ...]:
        """The relative error of records, in millionths; 0 for those that are stored exactly."""
        return tuple(_relative([self._missed.get(name, 0.0)], [self._moved.get(name, 0.0)]) for name in names)


def _relative(missed: Iterable[float], moved: Iterable[float]) -> int:
    moved = list(moved)
    largest = max(moved, default=0.0)
    if not largest:
        return 0
    return round(MILLIONTHS * math.hypot(*(x / largest for x in missed)) / math.hypot(*(x / largest for x in moved)))
