"""What a diff is to arrive at: a size of its file, or an error of its result."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, replace
from decimal import Decimal

from diffpack.errors import UsageError

_UNITS = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30, "ti": 1 << 40}
_AMOUNT = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(%|[kmgt]i?b?|b|)\s*", re.IGNORECASE)
_BITS = re.compile(r"[KMGT]i?b")
"""Units that are read as bits as well, and so are refused: Mb. All in small letters (mb) they are bytes."""
_KNOWN = "a size with its unit (1MB, 800KiB, 1M), whole bytes (500000), or a part of the base's bytes (0.5%, 0.005)"


@dataclass(frozen=True)
class Target:
    """What a diff is to arrive at: bytes of the whole file, or the relative L2 error of the result.

    A `share` is a budget as a part of the base's bytes, before these are known.
    """

    budget: int | None = None
    error: float | None = None
    share: float | None = None

    @classmethod
    def of(cls, budget: int | float | str | None, error: float | None) -> Target | None:
        """Read what the user asked for. Raises `UsageError`."""
        if budget is None and error is None:
            return None
        if budget is not None and error is not None:
            raise UsageError("choose one of budget and target error")
        if error is not None and not 0 < error < 1:
            raise UsageError(f"a target error is between 0 and 1, not {error}")
        if budget is None:
            return cls(error=error)
        size = parse_size(budget)
        return cls(share=size) if isinstance(size, float) else cls(size)

    def of_base(self, nbytes: int) -> Target:
        """The same for a base of so many bytes: a share becomes a budget. Raises `UsageError`."""
        if self.share is None:
            return self
        return replace(self, budget=_held(int(self.share * nbytes), f"{100 * self.share:g}%"), share=None)

    def kept(self, nbytes: int, error: float) -> bool:
        """Tell whether a file of so many bytes and such an error keeps to it."""
        return nbytes <= self.budget if self.budget is not None else error <= (self.error or 0.0)

    def describe(self) -> str:
        """The words for the file's recipe."""
        return f"budget {self.budget} bytes" if self.error is None else f"target error {self.error}"


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
        return _held(float(number) * _UNITS[unit.lower().removesuffix("b")], text)
    if number.isdecimal():
        return _held(int(number), text)
    if unit or not 0 < float(number) < 1:
        raise UsageError(f"a budget of {text.strip()!r} may be bytes or a part of the base: give {_KNOWN}")
    return float(number)


def _held(nbytes: float, text: str) -> int:
    """Whole bytes, if a file may have so many."""
    if nbytes > sys.maxsize:
        raise UsageError(f"a budget of {text.strip()[:20]} is more than any file has")
    return int(nbytes)
