"""Tensors of random bits under names, and how the tests of checkpoints write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from diffpack.checkpoints import Checkpoint
from diffpack.tensors.dtypes import DTYPES, Words
from diffpack.tensors.info import TensorInfo

Named = dict[str, tuple[TensorInfo, Words]]


def some_words(info: TensorInfo, seed: int = 0) -> Words:
    """Random bits: of a float dtype that is many NaNs, of a bool only 0 and 1 are its values."""
    raw = np.random.default_rng(seed).integers(0, 256, info.nbytes, np.uint8)
    return (raw & 1 if info.dtype.name == "BOOL" else raw).view(info.dtype.word)


def named(tensors: Mapping[str, TensorInfo], seed: int = 0) -> Named:
    return {name: (info, some_words(info, seed + number)) for number, (name, info) in enumerate(tensors.items())}


def infos(tensors: Named) -> dict[str, TensorInfo]:
    return {name: info for name, (info, _) in tensors.items()}


def fill(writer: Any, tensors: Named, piece: int = 7) -> None:
    for name, (info, words) in tensors.items():
        for start in range(0, words.size, piece):
            writer.write(name, start * info.dtype.word.itemsize, words[start : start + piece])


def f32(*shape: int) -> TensorInfo:
    return TensorInfo(DTYPES["F32"], shape)


def assert_holds(checkpoint: Any, tensors: Named) -> None:
    assert list(checkpoint.tensors.items()) == list(infos(tensors).items())
    for name, (info, words) in tensors.items():
        found = checkpoint.words(name)
        assert found.dtype == info.dtype.word
        assert found.ndim == 1
        assert not found.flags.writeable
        assert found.tobytes() == words.tobytes(), name


class InMemory(Checkpoint):
    """A checkpoint of tensors at hand, of dtypes, too, that no array has."""

    layout = "memory"

    def __init__(self, tensors: Named) -> None:
        super().__init__("in memory")
        self._tensors = tensors

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        return infos(self._tensors)

    def words(self, name: str) -> Words:
        return self._tensors[name][1]
