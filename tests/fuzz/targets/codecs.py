"""Each codec of streams alone: any bytes, as any dtype and count."""

from __future__ import annotations

import random
from functools import partial

import numpy as np

from diffpack.errors import CorruptFileError
from diffpack.format import streams
from tests.fuzz.changes import BYTES, NUMBERS
from tests.fuzz.target import Target, WrongResultError

_HEAD = 9  # bytes before the stream: which dtype, and how many numbers
_MOST_NUMBERS = 1 << 21  # what the chunk table lets through is tried by the target of diffs


def _seeds(codec: str) -> list[bytes]:
    rng = np.random.default_rng(0)
    found = []
    for at, dtype in enumerate(streams.DTYPES.values()):
        for count in (1, 300, 5000):
            numbers = rng.geometric(0.2, count).astype(dtype)
            head = bytes([at]) + count.to_bytes(8, "little")
            found.append(head + _ENCODE[codec](numbers))
    return found


_ENCODE = {"raw": streams.raw.encode, "zstd": streams.zstd.encode, "pco": streams.pco.encode}


def _change(data: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.8:
        return data[:_HEAD] + BYTES(data[_HEAD:], rng)
    count = rng.choice(NUMBERS) % _MOST_NUMBERS
    return bytes([rng.randrange(len(streams.DTYPES))]) + count.to_bytes(8, "little") + data[_HEAD:]


def _read(codec: str, data: bytes) -> None:
    head = data[:_HEAD].ljust(_HEAD, b"\0")
    dtype = list(streams.DTYPES)[head[0] % len(streams.DTYPES)]
    count = int.from_bytes(head[1:], "little") % _MOST_NUMBERS
    try:
        numbers = streams.decode(codec, dtype, count, data[_HEAD:], "fuzz")
    except CorruptFileError as error:
        if error.rule != "C4":
            raise WrongResultError(f"refused by {error.rule}") from error
        raise
    if (numbers.size, numbers.dtype) != (count, streams.DTYPES[dtype]):
        raise WrongResultError(f"{numbers.size} numbers of {numbers.dtype}")


TARGETS = [Target(f"codec-{codec}", partial(_seeds, codec), _change, partial(_read, codec)) for codec in streams.CODECS]
