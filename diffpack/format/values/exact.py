"""Exact values: steps on the ordered-integer line, modulo 2^w."""

from __future__ import annotations

from diffpack.format.streams import Numbers
from diffpack.tensors.dtypes import DType, Words, ordered, unordered


def encode(reference: Words, tuned: Words, dtype: DType) -> Numbers:
    """Give the steps that lead from `reference` to `tuned` (same length)."""
    steps: Numbers = ordered(tuned, dtype) - ordered(reference, dtype)
    return steps


def add(reference: Words, steps: Numbers, dtype: DType) -> Words:
    """Take the steps: the words they lead to."""
    return unordered(ordered(reference, dtype) + steps, dtype)
