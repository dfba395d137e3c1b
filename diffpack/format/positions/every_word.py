"""A number for every word, and no positions: where nearly everything changed."""

from __future__ import annotations

from diffpack.errors import CorruptFileError
from diffpack.format.positions.coding import Decoded, PositionCoding, Span
from diffpack.format.streams import Numbers
from diffpack.tensors.dtypes import Positions

DENSE_ENOUGH = 0.5
"""From this density on every word gets a number, if nothing better is known."""


class EveryWord(PositionCoding):
    """One stream: the numbers of all words."""

    id = "all"
    every_word = True
    keeps_zeros = True
    offered = True

    def decode(self, streams: list[Numbers], span: Span) -> Decoded:
        """The numbers. Raises `CorruptFileError` (P2)."""
        if len(streams) != 1:
            raise CorruptFileError(f"{span.where}: {len(streams)} streams", "P2")
        numbers = streams[0]
        span.check_numbers(numbers)
        if numbers.size != span.words:
            raise CorruptFileError(f"{span.where}: {numbers.size} values for {span.words} words", "P2")
        return None, numbers

    def encode(self, positions: Positions, numbers: Numbers, start: int, stop: int) -> list[Numbers]:
        """The numbers; the positions are all there are."""
        return [numbers]


EVERY_WORD = EveryWord()
