"""A record's changes as floats: what is given, and the base tensor that makes steps floats, checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy.typing as npt

from diffpack.checkpoints.memory import MappingCheckpoint
from diffpack.errors import BaseNeededError, WrongBaseError
from diffpack.support.names import printable
from diffpack.tensors.digests import DIGEST_BYTES, tensor_digest
from diffpack.tensors.dtypes import Positions
from diffpack.tensors.info import TensorInfo
from diffpack.tensors.reference import Reference


class Differences(NamedTuple):
    """Where a tensor changes, and by how much: sorted flat positions (int64), floats beside them."""

    positions: Positions
    values: npt.NDArray[Any]


def given_reference(name: str, info: TensorInfo, base: TensorInfo, digest: bytes | None, base_words: Any) -> Reference:
    """The reference of a record of `info` on a base tensor that is given: its flat words, or an array or tensor of it.

    `digest` is the recorded one of the base tensor (16 bytes). Raises `WrongBaseError` for a tensor of another dtype,
    shape or content, `UnsupportedCheckpointError` for what is no tensor.
    """
    given = MappingCheckpoint({name: base_words}, "the base words")
    found, words = given.info(name), given.words(name)
    flat = found.dtype.word == base.dtype.word and found.dtype.name.startswith("U") and found.shape == (base.words,)
    if found != base and not flat:
        raise WrongBaseError(f"the base words of {printable(name)}: {found}, not {base}, nor its flat words", (name,))
    if digest is not None and tensor_digest(words)[:DIGEST_BYTES] != digest:
        raise WrongBaseError(
            f"the base words of {printable(name)}: not the base tensor the diff was made from", (name,)
        )
    return Reference(info, base, words)


def only(name: str, reference: Reference) -> Callable[[str], Reference]:
    """References of which one is at hand. Others raise `BaseNeededError`: their words are coded among this one's."""

    def of(other: str) -> Reference:
        if other == name:
            return reference
        raise BaseNeededError(
            f"{printable(name)} is coded together with {printable(other)}, against the base: give the whole base, as "
            "diff.against(base)[name].differences() does"
        )

    return of
