"""How many bytes of tensors a file may hold: names that share a storage, and packed zeros, cost next to nothing."""

from __future__ import annotations

from collections.abc import Mapping

from diffpack.errors import CheckpointError
from diffpack.format.limits import Allowance
from diffpack.support.names import printable
from diffpack.tensors.info import TensorInfo

CLAIMED = Allowance(1 << 27, 64)
"""Bytes of a checkpoint's tensors, by its file's. Ties double a model, packing halves a file; 64 times is a bomb."""


def refuse_claims(tensors: Mapping[str, TensorInfo], file_bytes: int, source: str) -> None:
    """Raise `CheckpointError` for tensors that together have more bytes than a file of this size is read for."""
    total, most = sum(info.nbytes for info in tensors.values()), CLAIMED.most(file_bytes)
    if total > most:
        name = max(tensors, key=lambda name: tensors[name].nbytes)
        raise CheckpointError(
            f"{source}: its tensors claim {total:,} bytes of a file of {file_bytes:,}, where {most:,} may be (the "
            f"largest is {printable(name)}, {tensors[name]}): it is damaged, or packs next to nothing: save it unpacked"
        )
