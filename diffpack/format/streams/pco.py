"""The `pco` codec: one standalone pcodec file of exactly `count` numbers."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from pcodec import ChunkConfig, DeltaSpec, ModeSpec, PagingSpec, standalone

from diffpack.errors import CorruptFileError
from diffpack.format.streams.raw import Numbers
from diffpack.support.aside import aside

LEVEL = 8
SMALL_LEVEL = 11
"""More bins: 0.2 % smaller gaps; its cost in time is only worth it where streams are small."""
SMALL = 1 << 18
_NUMBERS_A_PAGE = 1 << 20


@cache
def _find_numpy() -> None:
    """Let pcodec load what it needs of NumPy, as its first call does: it panics if a signal breaks into that."""
    aside(lambda: standalone.simple_compress(np.zeros(1, np.uint32), ChunkConfig()))


def encode(numbers: Numbers) -> bytes:
    """Code numbers as pco bins. Gaps and steps have no order to exploit, so modes and deltas are off."""
    _find_numpy()
    unsigned = numbers.dtype.kind == "u"
    config = ChunkConfig(
        compression_level=SMALL_LEVEL if unsigned and numbers.size <= SMALL else LEVEL,
        mode_spec=ModeSpec.classic(),
        delta_spec=DeltaSpec.no_op(),
        paging_spec=PagingSpec.equal_pages_up_to(_NUMBERS_A_PAGE),
        enable_8_bit=True,
    )
    data: bytes = standalone.simple_compress(np.ascontiguousarray(numbers), config)
    return data


def decode(data: bytes, dtype: np.dtype[Any], count: int, where: str) -> Numbers:
    """Decode into room for `count` numbers and no more. Raises `CorruptFileError`."""
    _find_numpy()
    numbers = np.empty(count, dtype)
    try:
        progress = standalone.simple_decompress_into(data, numbers)
    except (RuntimeError, TypeError, ValueError) as error:
        raise CorruptFileError(f"{where}: not a pco stream: {error}", "C4") from None
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # a panic in the decoder derives from BaseException
            raise
        raise CorruptFileError(f"{where}: not a pco stream: {error}", "C4") from None
    if progress.n_processed != count or not progress.finished:
        raise CorruptFileError(f"{where}: the pco stream does not hold {count} numbers", "C4")
    return numbers
