"""Which words of a span change: one file a coding; this is their registry."""

from __future__ import annotations

from diffpack.format.positions.classes import CLASSES
from diffpack.format.positions.coding import PositionCoding
from diffpack.format.positions.every_word import EVERY_WORD
from diffpack.format.positions.gaps import GAPS
from diffpack.format.positions.levels import LEVELS
from diffpack.format.positions.rule import BY_RULE

__all__ = ["POSITION_CODINGS", "PositionCoding"]

POSITION_CODINGS: dict[str, PositionCoding] = {
    coding.id: coding
    for coding in (
        GAPS,
        EVERY_WORD,
        LEVELS,
        BY_RULE,
        CLASSES,
    )
}
"""Every position coding a group may use, by its id."""
