# Kept as it was released with format 1.1; nothing is changed but this line.
"""Positions that a rule tells: `rule` groups, section 5 of format.md."""

import re
from typing import Any

import numpy as np
from blake3 import blake3

from .words import Array, check

RULE = "smallest|largest|random (?:0|[1-9][0-9]{0,18})"


def is_rule(text: str) -> bool:
    return bool(re.fullmatch(RULE, text)) and int("0" + text.removeprefix("random ") * text.startswith("r")) < 2**63


def keys_of(seed: int, name: str, size: int) -> Array:
    """Return key(p) of each word of a tensor, for `random`."""
    first = seed + int.from_bytes(blake3(name.encode()).digest()[:8], "little")
    z = np.uint64(first % 2**64) + np.arange(1, size + 1, dtype="<u8") * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    result: Array = z ^ z >> np.uint64(31)
    return result


def chosen_of(g: dict[str, Any], stops: list[int], line: Array) -> Array:
    """Return the chosen words of a line. `stops`: 0, then where each record ends in it."""
    rule, result = g["rule"], [np.zeros(0, "<i8")]
    for name, count, start, stop in zip(g["names"], g["counts"], stops[:-1], stops[1:], strict=True):
        if rule.startswith("random"):
            keys = keys_of(int(rule.split()[1]), name, stop - start)
        else:
            words = line[start:stop]
            keys = (words & np.iinfo(words.dtype).max).astype("<i8")  # without the sign no word is negative
            keys = -keys if rule == "largest" else keys
        result.append(start + np.sort(np.argsort(keys, kind="stable")[:count]))
    return np.concatenate(result)


def read_chosen(
    streams: list[Array], chosen: Array | None, start: int, stop: int, g: dict[str, Any], stops: list[int]
) -> tuple[Array, Array]:
    """Return positions and values of a span [start, stop); without the base, the first words stand in."""
    check(len(streams) == 1, "W3", "a span is not one stream of values")
    many = len(streams[0])
    least = most = 0  # values that the span can have, wherever the chosen words are
    for count, first, last in zip(g["counts"], stops[:-1], stops[1:], strict=True):
        inside = max(min(stop, last) - max(start, first), 0)
        most += min(count, inside)
        least += max(0, count - (last - first - inside))
    check(least <= many <= most, "W3", f"{many} values, not {least} to {most}")
    if chosen is None:
        return np.arange(start, start + many), streams[0]
    positions = chosen[(chosen >= start) & (chosen < stop)]
    check(len(positions) == many, "W3", f"{many} values for {len(positions)} chosen words")
    return positions, streams[0]
