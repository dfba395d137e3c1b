"""How inputs are changed: blindly, number by number, and token by token."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

Change = Callable[[bytes, random.Random], bytes]

NUMBERS = [0, 1, 2, 7, 63, 64, 65, 127, 128, 255, 256, 1 << 15, 1 << 16, 1 << 20, (1 << 31) - 1, 1 << 31, 1 << 32]
NUMBERS += [1 << 40, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]
"""Where widths and limits end."""
_DEEP = 100_000
_LONG = 300_000
_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?|true|false|null|[][{},:]')
_STRANGE = [
    b'"\\ud800"', b'"\\u0000"', b'"' + b"x" * _LONG + b'"', b"[" * _DEEP, b'{"a":' * _DEEP, b"-1", b"1e400", b"NaN",
    b"9" * 5000, b"9" * 400, b"1.5", b'"\xff"', b"[]", b"{}", b"null", b"true", b'""', b'"../x"', b'"CON"',
    b'"' + b"y" * 300 + b'"',
    b"[" + b"1," * 60 + b"1]", b"[" + b"0," * 100_000 + b"0]", b"[9223372036854775807,9223372036854775807,9]",
    b'"F64"', b'"F4"', b'"U8"', b'"BF16"',
]  # fmt: skip


def one_of(changes: Sequence[Change]) -> Change:
    """A change that is each time another of several."""
    return lambda data, rng: rng.choice(changes)(data, rng)


def blind(data: bytes, rng: random.Random) -> bytes:
    """Change, remove, repeat or insert some bytes."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(out) + 1)
        length = rng.randint(1, 16)
        match rng.randrange(5):
            case 0 if at < len(out):
                out[at] ^= 1 << rng.randrange(8)
            case 1:
                del out[at : at + length]
            case 2:
                out[at:at] = out[at : at + length] * rng.choice([1, 1, 50])
            case 3:
                out[at:at] = rng.randbytes(length)
            case _:
                other = rng.randrange(len(out) + 1)
                out[at : at + length] = out[other : other + length]
    return bytes(out)


def cut(data: bytes, rng: random.Random) -> bytes:
    """The file without its end, or its beginning."""
    at = rng.randrange(len(data) + 1)
    return data[:at] if rng.random() < 0.8 else data[at:]


def number(data: bytes, rng: random.Random) -> bytes:
    """Put another little-endian number, of any width, somewhere."""
    out, width = bytearray(data), rng.choice([1, 2, 4, 8])
    if len(out) >= width:
        at = rng.randrange(len(out) - width + 1)
        old = int.from_bytes(out[at : at + width], "little")
        new = rng.choice([*NUMBERS, old + 1, old - 1, old * 2, old ^ 1 << rng.randrange(8 * width)])
        out[at : at + width] = (new % (1 << 8 * width)).to_bytes(width, "little")
    return bytes(out)


def token(text: bytes, rng: random.Random) -> bytes:
    """Replace, remove or repeat one token of JSON or of a Python literal."""
    found = list(_TOKENS.finditer(text))
    if not found:
        return blind(text, rng)
    old, other = rng.choice(found), rng.choice(found)
    match rng.randrange(6):
        case 0 | 1:
            new = other.group()
        case 2:
            new = str(rng.choice(NUMBERS)).encode()
        case 3:
            new = rng.choice(_STRANGE)
        case 4:
            new = b",".join([old.group()] * rng.choice([2, 3, 40, 5000]))
        case _:
            new = b""
    return text[: old.start()] + new + text[old.end() :]


BYTES = one_of([blind, blind, number, number, cut])
"""Changes of any bytes."""
