"""Merging diffs of one base: one file a method, and their registry (`methods`)."""

from diffpack.algebra.merge.merge import merge
from diffpack.algebra.merge.methods import METHODS

__all__ = ["METHODS", "merge"]
