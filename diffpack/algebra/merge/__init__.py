"""Merging diffs of one base: one file a method in `methods`, whose registry is `METHODS`."""

from diffpack.algebra.merge.config import MergeConfig, read_config
from diffpack.algebra.merge.methods import METHODS

__all__ = ["METHODS", "MergeConfig", "read_config"]
