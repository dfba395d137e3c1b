"""What a tensor's words are read from, part by part: an array in memory, or a file."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

import numpy as np

from diffpack.tensors.dtypes import Positions, Words

Part: TypeAlias = slice | Positions
"""What is read at once: a slice of step 1, or increasing positions."""


class WordSource(Protocol):
    """The words of one tensor. An array is one; those of a file read what is asked for, and raise if it ends early."""

    @property
    def size(self) -> int:
        """How many words there are."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The unsigned dtype of a word."""

    def __getitem__(self, part: Part, /) -> Words:
        """The words of a slice of step 1, or at positions, to be read only."""
