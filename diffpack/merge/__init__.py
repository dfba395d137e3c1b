"""Merging diffs of one base: one file a method, and their registry (`methods`)."""

from diffpack.merge.merging import merge
from diffpack.merge.methods import METHODS

__all__ = ["METHODS", "merge"]
