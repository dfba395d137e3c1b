"""Sizes as people write them: 1MB, 800KiB, 0.5%."""

from __future__ import annotations

import re
import sys
from decimal import Decimal

from diffpack.errors import UsageError

_UNITS = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30, "ti": 1 << 40}
_AMOUNT = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(%|[kmgt]i?b?|b|)\s*", re.IGNORECASE)
_BITS = re.compile(r"[KMGT]i?b")
"""Units that are read as bits as well, and so are refused: Mb. All in small letters (mb) they are bytes."""
_KNOWN = "a size with its unit (1MB, 800KiB, 1M), whole bytes (500000), or a part of the base's bytes (0.5%, 0.005)"


def parse_size(size: int | float | str) -> int | float:
    """Read a size: bytes as an int, a part of the base's bytes as a float.

    Bytes are whole numbers, or have a unit (k, M, G, T, with or without B; Ki, Mi, ... are powers of two; letters may
    be small); a part is a percentage or a fraction below 1. Raises `UsageError`, for what may mean both, too.
    """
    text = format(Decimal(repr(size)), "f") if isinstance(size, float) else str(size)
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise UsageError(f"a budget is {_KNOWN}, not {str(size)[:80]!r}")
    number, unit = match[1], match[2]
    if unit == "%":
        return float(number) / 100
    if _BITS.fullmatch(unit):
        bytes_unit = f"{unit[:-1]}B"
        raise UsageError(f"a budget of {text.strip()!r} may be bits: {number}{bytes_unit} is bytes")
    if unit.lower() not in ("", "b"):
        return held(float(number) * _UNITS[unit.lower().removesuffix("b")], text)
    if number.isdecimal():
        return held(int(number), text)
    if unit or not 0 < float(number) < 1:
        raise UsageError(f"a budget of {text.strip()!r} may be bytes or a part of the base: give {_KNOWN}")
    return float(number)


def whole_size(size: int | str) -> int:
    """Read a size in bytes that is no part of anything. Raises `UsageError`."""
    nbytes = parse_size(size)
    if isinstance(nbytes, float):
        raise UsageError(f"a storage budget is a size (512MB), not a part of a base: {str(size)[:80]!r}")
    return nbytes


def held(nbytes: float, text: str) -> int:
    """Whole bytes, if a file may have so many."""
    if nbytes > sys.maxsize:
        raise UsageError(f"a budget of {text.strip()[:20]} is more than any file has")
    return int(nbytes)
