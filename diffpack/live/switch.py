"""The one who writes: from the patch that stands in a module to another, whole or not at all.

What was at a place before a patch is kept while the patch stands there, and written back, bit for bit; nothing is
computed. Writing is journalled: what is kept always suffices to get the base back, whenever a switch is cut off.
"""

from __future__ import annotations

import threading

from torch import Tensor

from diffpack.live.patch import BASE, Entry, Patch
from diffpack.live.places import Place


class Switch:
    """What stands in a module's places. `patch` is it, `BASE` for nothing. `lock` is held while words are written.

    Of the base, `before` gives what a place held before.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.patch: Patch | None = BASE
        self._kept: dict[Place, tuple[Entry, Tensor]] = {}

    def to(self, patch: Patch) -> None:
        """Put another patch in place of the one that stands there.

        What both write whole is written once. If anything fails, what stood there before is put back, and the error is
        raised; if even that is cut off, `patch` is None, and the next call mends it. Raises `UsageError` if
        somebody else wrote there (`Place.check`).
        """
        with self.lock:
            before = self.patch
            if patch is before:
                return
            for place in {*self._kept, *(entry.place for entry in patch.entries)}:
                place.check()
            self.patch = None
            try:
                self._replace(patch)
            except BaseException:
                if before is not None:
                    self._replace(before)
                    self.patch = before
                raise
            self.patch = patch

    def before(self, place: Place) -> tuple[Tensor | None, Tensor] | None:
        """Positions (None for all) and words that were in a place before; None if the base stands there."""
        kept = self._kept.get(place)
        return None if kept is None else (kept[0].index, kept[1])

    def _replace(self, patch: Patch) -> None:
        whole = {entry.place for entry in patch.entries if entry.index is None}
        for place, (entry, words) in list(self._kept.items()):
            if not (entry.index is None and place in whole):  # else it is written over at once
                place.write(entry.index, words)
                del self._kept[place]
        for entry in patch.entries:
            place = entry.place
            if place in self._kept:
                self._kept[place] = (entry, self._kept[place][1])
            else:
                self._kept[place] = (entry, place.words.gather(entry.index))
            place.write(entry.index, entry.words)
