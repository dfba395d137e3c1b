"""Amounts as people read them: sizes, percentages, counts with their noun, names cut to a width."""

from __future__ import annotations

_UNITS = ("kB", "MB", "GB", "TB", "PB")
_CUT = "…"


def size(nbytes: int) -> str:
    """A size in decimal units: `812 bytes`, `29.9 MB`."""
    if nbytes < 1000:
        return plural(nbytes, "byte")
    number = float(nbytes)
    for unit in _UNITS:
        number /= 1000
        if number < 999.5 or unit == _UNITS[-1]:
            break
    digits = 2 if number < 9.995 else 1 if number < 99.95 else 0
    return f"{number:.{digits}f} {unit}"


def percent(fraction: float) -> str:
    """A fraction as a percentage of three digits; what is not nothing, or not all, never looks so."""
    number = 100 * fraction
    if number == 0:
        return "0 %"
    if 0 < number < 0.001:
        return "<0.001 %"
    if 99.95 <= number < 100:
        return ">99.9 %"
    digits = 2 if number < 9.995 else 1 if number < 100 else 0
    if number < 0.0995:
        digits = 3
    return f"{number:.{digits}f} %"


def times(factor: float) -> str:
    """A multiple of something: `1.05 x`, `9.00 x`, `40.0 x`."""
    digits = 2 if factor < 9.995 else 1 if factor < 99.95 else 0
    return f"{factor:,.{digits}f} x"


def few_bits(bits: float) -> str:
    """Bits for each change: one digit behind the point, two that count below one."""
    return f"{bits:.1f}" if bits >= 1 else f"{bits:.2g}"


def plural(count: int, noun: str) -> str:
    """A count with its noun: `1 tensor`, `2,000 tensors`, `0 entries`."""
    many = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{count:,} {noun if count == 1 else many}"


def shortened(name: str, width: int) -> str:
    """A name in at most `width` characters, cut in the middle: both ends of a path or a tensor's name tell most."""
    if len(name) <= width:
        return name
    if width <= 1:
        return _CUT[:width]
    tail = width // 2
    return f"{name[: width - 1 - tail]}{_CUT}{name[len(name) - tail :]}"
