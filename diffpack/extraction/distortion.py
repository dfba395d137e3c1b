"""How far a lossy result is from the tuned checkpoint: relative L2 error, overall and of each record.

The error is that of the result itself, rounded as apply rounds it: |result - tuned| / |tuned - reference|.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from diffpack.checkpoints.base import Place
from diffpack.diff.relative_error import with_errors
from diffpack.extraction.scan.norms import difference_norm, norm_of_norms
from diffpack.extraction.scan.scan import Scan
from diffpack.format.manifest import Manifest
from diffpack.tensors.dtypes import Words


class Distortion:
    """Adds errors up while a result is produced: `see` is what `Result.run` writes to.

    `moved` is what `norms` gives for the scans.
    """

    def __init__(self, scans: Iterable[Scan], moved: Mapping[str, float]) -> None:
        self._scans = {item.pair.name: item for item in scans if item.pair.name in moved}
        self._moved = moved
        self._missed = dict.fromkeys(self._scans, 0.0)

    def see(self, words: Words, places: Sequence[Place]) -> None:
        """Take words of result tensors."""
        for place in places:
            item = self._scans.get(place.name)
            if item is not None:
                start, own = place.offset // words.itemsize, words[place.first : place.stop]
                missed = difference_norm(own, item.tuned[start : start + own.size], item.pair.info.dtype)
                self._missed[place.name] = norm_of_norms(self._missed[place.name], missed)

    def recorded(self, manifest: Manifest) -> Manifest:
        """The manifest with the errors that were seen: overall and of each float record."""
        return with_errors(manifest, self._missed, self._moved)
