"""Each coding of positions and values, and factors: numbers of their streams changed, whose digests fit."""

from __future__ import annotations

import json
import random
from functools import cache, partial

from diffpack.format.positions import POSITION_CODINGS
from diffpack.format.values import VALUE_CODINGS
from tests.fuzz.diffs import parted, remanifest, renumber
from tests.fuzz.packs import pack, unpack
from tests.fuzz.target import Target
from tests.fuzz.targets.diffs import read, seeds


@cache
def _manifests() -> list[tuple[bytes, list[dict[str, object]]]]:
    """Every seed whose streams are raw, with its groups."""
    found = [(seed, json.loads(parted(unpack(seed)["diff"])[1])) for seed in seeds()[1::2]]
    return [(seed, manifest["groups"]) for seed, manifest in found]


def _with(member: str, coding: str) -> list[bytes]:
    return [seed for seed, groups in _manifests() if any(group.get(member) == coding for group in groups)]


def _factored() -> list[bytes]:
    return [seed for seed, groups in _manifests() if any("factors" in group for group in groups)]


def _change(data: bytes, rng: random.Random) -> bytes:
    files = unpack(data)
    try:
        files["diff"] = (renumber if rng.random() < 0.8 else remanifest)(files["diff"], rng)
    except Exception:  # a manifest that was changed before
        return data
    return pack(files)


TARGETS = [
    *(Target(f"positions-{name}", partial(_with, "positions", name), _change, read) for name in POSITION_CODINGS),
    *(Target(f"values-{name}", partial(_with, "values", name), _change, read) for name in VALUE_CODINGS),
    Target("factors", _factored, _change, read),
]
