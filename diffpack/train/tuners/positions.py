"""Positions as people have them, as the tuner wants them: tensors, numpy arrays, lists, a diff's records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from diffpack.checkpoints import open_checkpoint
from diffpack.diff.diff import Diff
from diffpack.diff.naming import find_naming
from diffpack.diff.record import TensorDiff
from diffpack.errors import UsageError

Positions = Mapping[str, Tensor | npt.NDArray[Any] | Sequence[int] | TensorDiff | None]
"""Parameter name -> sorted flat positions (integers, C order) that are trained; None trains all of a tensor.

A `Diff` is such a mapping; so is any part of one.
"""


def by_parameter(model: nn.Module, positions: Positions) -> dict[str, Tensor | None]:
    """Positions (int64) by the names of a model's parameters; a diff's names may have another prefix than these.

    Raises `UsageError` for what is no mapping, and for positions that are no whole numbers.
    """
    if not isinstance(positions, Mapping):
        raise UsageError("positions are a mapping: a parameter's name -> its positions, or None for all of it")
    names: Mapping[str, str] = {}
    if isinstance(positions, Diff):
        names = _names_in(model, positions)
    return {names.get(name, name): _as_tensor(name, where) for name, where in positions.items()}


def _names_in(model: nn.Module, diff: Diff) -> dict[str, str]:
    """What the model calls the tensors of a diff."""
    own = open_checkpoint({name: value.detach() for name, value in model.named_parameters(remove_duplicate=False)})
    needs = {name: record.info for name, record in diff.items() if record.base is not None}
    naming = find_naming(own, diff.manifest.rename, needs, lambda name: diff.digests(name)[0], live=True)
    return {name: naming.called(name) for name in diff}


def _as_tensor(name: str, where: Any) -> Tensor | None:
    if isinstance(where, TensorDiff):
        if where.info.dtype.bits != where.info.dtype.word_bits:
            raise UsageError(f"{name!r}: {where.dtype} entries are not trained")
        where = None if where.position_coding.every_word else where.positions
    if where is None:
        return None
    if isinstance(where, Tensor):
        if where.dtype == torch.bool or where.is_floating_point() or where.is_complex():
            raise UsageError(_wrong(name, f"a tensor of {where.dtype}", mask=where.dtype == torch.bool))
        return where.to(torch.int64)
    if isinstance(where, str | bytes | Mapping) or not isinstance(where, np.ndarray | Sequence):
        raise UsageError(_wrong(name, f"a {type(where).__name__}"))
    try:
        array = np.asarray(where)
    except ValueError:  # lists of different lengths
        raise UsageError(_wrong(name, f"a {type(where).__name__} of {type(where[0]).__name__}s")) from None
    if not array.size and not isinstance(where, np.ndarray):
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        kind = f"{'an array' if isinstance(where, np.ndarray) else f'a {type(where).__name__}'} of {array.dtype}"
        raise UsageError(_wrong(name, kind, mask=array.dtype == np.bool_))
    if array.dtype == np.uint64 and (array > np.uint64(np.iinfo(np.int64).max)).any():
        raise UsageError(f"{name!r}: positions are below 2^63")
    return torch.from_numpy(array.astype(np.int64))  # a copy: arrays of diffs may be read-only, or big-endian


def _wrong(name: str, what: str, *, mask: bool = False) -> str:
    """Say that positions are of a wrong kind, and what to do."""
    advice = "; of a mask they are the places that are true: numpy.flatnonzero(mask)" if mask else ""
    return f"{name!r}: positions are whole numbers (int64, int32, ..., or a list), not {what}{advice}"
