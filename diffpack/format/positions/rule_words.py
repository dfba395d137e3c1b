"""Rules, and the words they tell: the smallest or largest of the reference, or random ones.

Random: the words with the smallest keys, a key being SplitMix64 (Steele, Lea, Flood 2014, OOPSLA, figure 16) of a seed,
the tensor's name and the position. So every reader can draw the same words of each tensor, in any order.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import sqrt
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from diffpack.tensors.dtypes import Positions

MOST_SEED = (1 << 63) - 1
_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio: what SplitMix64 adds for each number
_FACTORS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_MASK = (1 << 64) - 1
_BLOCK = 1 << 20  # keys made together: 8 MB
_MARGIN = 4.0  # standard deviations: how rarely too few keys lie below the first bound
_FORM = re.compile(r"smallest|largest|random (0|[1-9][0-9]{0,18})")

Keys = npt.NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True)
class Rule:
    """Which words of a record are chosen. `seed` counts for random ones only."""

    kind: str
    seed: int = 0

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read `smallest`, `largest` or `random N`; None if it is none of them."""
        form = _FORM.fullmatch(text)
        if form is None:
            return None
        if form[1] is None:
            return cls(text)
        return cls("random", int(form[1])) if int(form[1]) <= MOST_SEED else None

    @property
    def by_weight(self) -> bool:
        """Whether the words of the reference tell the positions."""
        return self.kind != "random"

    def __str__(self) -> str:
        return self.kind if self.by_weight else f"random {self.seed}"


def by_weight(rule: Rule, reference: npt.NDArray[Any], count: int) -> Positions:
    """The sorted positions of `count` words of float bits (1-D, unsigned), chosen by their bits without the sign.

    Takes about twice the memory of the words.
    """
    keys: Keys = reference & np.array(np.iinfo(reference.dtype).max >> 1, reference.dtype)
    if rule.kind == "largest":
        np.invert(keys, out=keys)
    return np.flatnonzero(_lowest(keys, count))


def at_random(rule: Rule, name: str, words: int, count: int) -> Positions:
    """The sorted positions of `count` of the words of a tensor, in memory for that many and a block of keys."""
    if count == words or not count:
        return np.arange(count, dtype=np.int64)
    start = (rule.seed + int.from_bytes(blake3(name.encode()).digest(8), "little")) & _MASK
    share = (count + _MARGIN * sqrt(count) + _MARGIN**2) / words
    while True:
        bound = min(_MASK, int(share * 2.0**64))
        places, keys = _below(start, words, bound)
        if places.size >= count:
            return places[_lowest(keys, count)]
        share *= 2


def _below(start: int, words: int, bound: int) -> tuple[Positions, Keys]:
    """The positions whose key is `bound` or less, and the keys."""
    places, keys = [], []
    for first in range(0, words, _BLOCK):
        own = _keys(start, first, min(first + _BLOCK, words))
        low = np.flatnonzero(own <= np.uint64(bound))
        places.append(low + first)
        keys.append(own[low])
    return np.concatenate(places), np.concatenate(keys)


def _keys(start: int, first: int, stop: int) -> npt.NDArray[np.uint64]:
    keys = np.arange(first + 1, stop + 1, dtype=np.uint64)
    keys *= np.uint64(_GOLDEN)
    keys += np.uint64(start)
    for shift, factor in _FACTORS:
        keys ^= keys >> np.uint64(shift)
        keys *= np.uint64(factor)
    keys ^= keys >> np.uint64(31)
    return keys


def _lowest(keys: Keys, count: int) -> npt.NDArray[np.bool_]:
    """Mark the `count` lowest keys; of equal ones the first."""
    if not count:
        return np.zeros(keys.size, np.bool_)
    limit = np.partition(keys, count - 1)[count - 1]
    taken: npt.NDArray[np.bool_] = keys < limit
    ties = np.flatnonzero(keys == limit)
    taken[ties[: count - int(np.count_nonzero(taken))]] = True
    return taken
