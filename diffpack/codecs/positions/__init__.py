"""Which words of a span change: one file a coding."""

from diffpack.codecs.positions import all as all_positions
from diffpack.codecs.positions import gaps

__all__ = ["CODINGS", "all_positions", "gaps"]

CODINGS = ("all", "gaps")
"""Ids of the position codings a group may use."""
