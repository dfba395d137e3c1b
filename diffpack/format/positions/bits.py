"""A bit for each word of a span: the rank of a word among those that are set, and the word of a rank.

Counts are kept every 64 bits (Jacobson 1989); within 64 of them, bytes are counted side by side (Vigna, "Broadword
implementation of rank/select queries", 2008).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from diffpack.tensors.dtypes import Positions

Bits64 = npt.NDArray[np.uint64]

_BYTES = np.uint64(0x0101010101010101)
_HIGH_BITS = np.uint64(0x8080808080808080)
_BLOCK_BITS = 64


def _byte_table() -> npt.NDArray[np.uint8]:
    """Where in a byte the set bit of each rank is, at 256 x rank + byte."""
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
    table = np.zeros((8, 256), np.uint8)
    for byte, row in enumerate(bits):
        places = np.flatnonzero(row)
        table[: places.size, byte] = places
    return table.reshape(-1)


_PLACE_IN_BYTE = _byte_table()


@dataclass(frozen=True)
class Bits:
    """Bits 64 by 64, lowest first, and how many are set before each 64."""

    blocks: Bits64
    before: npt.NDArray[np.int64]

    @classmethod
    def of(cls, mask: npt.NDArray[np.bool_]) -> Bits:
        """Make it of one bool for each bit."""
        packed = np.packbits(mask, bitorder="little")
        blocks = np.zeros(-(-mask.size // _BLOCK_BITS), "<u8")
        blocks.view(np.uint8)[: packed.size] = packed
        before = np.zeros(blocks.size, np.int64)
        np.cumsum(set_bits(blocks[:-1]), out=before[1:])
        return cls(blocks, before)

    def ranks(self, places: Positions) -> Positions:
        """How many bits are set before each place."""
        block = places >> 6
        below = (np.uint64(1) << (places & 63).astype(np.uint64)) - np.uint64(1)
        ranks: Positions = self.before[block] + set_bits(self.blocks[block] & below)
        return ranks

    def select(self, ranks: Positions) -> Positions:
        """The places of the set bits with these ranks (each less than the number of set bits; sorted is faster)."""
        block = np.searchsorted(self.before, ranks, side="right") - 1
        bits = self.blocks[block]
        rank = (ranks - self.before[block]).astype(np.uint64)
        counts = _byte_counts(bits) * _BYTES  # in each byte: how many are set in it and those below
        fewer = ((rank * _BYTES) | _HIGH_BITS) - counts  # a byte keeps its high bit if its count is at most the rank
        shift = (((fewer & _HIGH_BITS) >> np.uint64(7)) * _BYTES >> np.uint64(56)) << np.uint64(3)
        rank -= (counts << np.uint64(8)) >> shift & np.uint64(0xFF)
        place = _PLACE_IN_BYTE[(rank << np.uint64(8) | (bits >> shift & np.uint64(0xFF))).view(np.int64)]
        places: Positions = (block << 6) + shift.view(np.int64) + place
        return places


def _byte_counts(bits: Bits64) -> Bits64:
    """How many bits are set in each byte."""
    twos = bits - (bits >> np.uint64(1) & np.uint64(0x5555555555555555))
    fours = (twos & np.uint64(0x3333333333333333)) + (twos >> np.uint64(2) & np.uint64(0x3333333333333333))
    eights: Bits64 = fours + (fours >> np.uint64(4)) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return eights


def set_bits(bits: Bits64) -> npt.NDArray[Any]:
    """How many bits are set in each 64."""
    if np.lib.NumpyVersion(np.__version__) >= "2.0.0":
        return np.bitwise_count(bits)
    return (_byte_counts(bits) * _BYTES >> np.uint64(56)).view(np.int64)
