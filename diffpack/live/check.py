"""What a module holds, hashed and compared with what it should hold."""

from __future__ import annotations

from functools import partial

from diffpack.diff.diff import Diff
from diffpack.errors import ResultMismatchError, UsageError
from diffpack.live.live_base import LiveBase
from diffpack.live.module_words import ModuleWords
from diffpack.live.patch import Patch
from diffpack.live.places import Place
from diffpack.live.switch import Switch
from diffpack.support.names import listed
from diffpack.support.parallel import run_all
from diffpack.tensors.digests import DIGEST_BYTES, tensor_digest


def check_module(base: LiveBase, patch: Patch, diff: Diff | None) -> int:
    """Compare each place with the digest of what a patch, made of a diff, leaves there.

    Give how many were compared; those the base does not hold, and changed ones whose digest is not recorded, are not.
    Raises `ResultMismatchError`; `UsageError` for a base that is cast.
    """
    if base.cast:
        raise UsageError("a model in another dtype than its base's cannot be verified: no diff records those bits")
    expected: dict[Place, bytes] = {}
    for name in base.tensors:
        place = base.held(name)
        if place is not None:
            expected[place] = base.digest(name)
    for entry in patch.entries:
        recorded = diff.digests(entry.name)[1] if diff is not None and entry.name in diff else None
        if recorded is not None:
            expected[entry.place] = recorded
        else:
            expected.pop(entry.place, None)
    found = run_all([partial(_digest, place) for place in expected])
    wrong = [place.name for place, digest in zip(expected, found, strict=True) if digest != expected[place]]
    if wrong:
        what = "the base" if diff is None else diff.name
        raise ResultMismatchError(f"{base.source}: holds other bits than {what} records in {listed(wrong)}")
    return len(expected)


def _digest(place: Place) -> bytes:
    return tensor_digest(ModuleWords(place, _NOTHING_WRITTEN))[:DIGEST_BYTES]


_NOTHING_WRITTEN = Switch()  # what is there now counts, not what was before
