"""Pickles changed instruction by instruction."""

from __future__ import annotations

import pickle
import pickletools
import random

from tests.fuzz.changes import BYTES

_BIG = (1 << 40).to_bytes(8, "little")
_HOSTILE = [
    pickle.BYTEARRAY8 + (3 << 30).to_bytes(8, "little"), pickle.BINBYTES8 + _BIG, pickle.BINUNICODE8 + _BIG,
    pickle.FRAME + _BIG, pickle.LONG4 + (30_000).to_bytes(4, "little") + b"\x7f" * 30_000, pickle.EXT1 + b"\1",
    b"cos\nsystem\n", b"cbuiltins\neval\n", b"ios\nsystem\n", pickle.MARK, pickle.EMPTY_LIST * 5000,
    pickle.MARK * 5000, pickle.TUPLE1 * 5000, (pickle.DUP + pickle.TUPLE2) * 40,
    (pickle.DUP + pickle.TUPLE2) * 40 + pickle.REDUCE,
    b"X\xff\xff\xff\x7f", b"X\4\0\0\0\xed\xa0\x80x", pickle.REDUCE, pickle.BUILD, pickle.NEWOBJ, pickle.OBJ,
    pickle.BINPERSID, b"Pabc\n", pickle.LONG_BINPUT + b"\xff\xff\xff\x7f", pickle.LONG_BINGET + b"\xff\xff\xff\x7f",
    pickle.POP, pickle.DUP, pickle.SETITEM, pickle.SETITEMS, pickle.APPEND, pickle.APPENDS, pickle.FROZENSET,
    pickle.ADDITEMS, pickle.EMPTY_SET, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER, b"I99999999999999999999\n",
    b"L" + b"9" * 5000 + b"L\n", b"Fnan\n", b"S'\\x'\n", b"V\\ud800\n", pickle.PROTO + b"\xff", pickle.STOP,
    b"ctorch\ndevice\n", b"c_codecs\nencode\n", b"ccollections\nOrderedDict\n", b"ctorch\nSize\n", b"K\xff" * 300,
]  # fmt: skip


def change_program(program: bytes, rng: random.Random) -> bytes:
    """Swap, repeat, remove or insert instructions, or change what they are given."""
    try:
        starts = [at for _, _, at in pickletools.genops(program) if at is not None]
    except Exception:  # it was damaged before
        return BYTES(program, rng)
    if len(starts) < 2:
        return BYTES(program, rng)
    parts = [program[a:b] for a, b in zip(starts, [*starts[1:], starts[-1] + 1], strict=True)]
    rest = program[starts[-1] + 1 :]
    at, other = rng.randrange(len(parts)), rng.randrange(len(parts))
    match rng.randrange(8):
        case 0:
            parts[at], parts[other] = parts[other], parts[at]
        case 1:
            stop = at + rng.randint(1, 12)
            parts[at:stop] = parts[at:stop] * rng.choice([2, 2, 30, 1000])
        case 2:
            del parts[at : at + rng.randint(1, 4)]
        case 3 | 4:
            parts.insert(at, rng.choice(_HOSTILE))
        case 5:
            parts[at] = parts[at][:1] + BYTES(parts[at][1:], rng)
        case 6:
            parts[at] = parts[other]
        case _:
            parts[at:at] = [b"h" + bytes([rng.randrange(30)])] * rng.choice([1, 1, 3])
    return b"".join(parts) + rest
