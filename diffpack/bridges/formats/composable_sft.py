"""composable-sft (Lottery Ticket Sparse Fine-Tuning): `pytorch_diff.bin`, to read.

A `torch.save` of `{"diffs": {name: {"size", "index_steps", "values"}}, "abs": {name: tensor}}`. `diffs` are added to
the base; `index_steps` are the first differences of flat positions as a list of integers, the first one the position
itself, and positions count the *first* dimension fastest (Fortran order). `abs` replaces tensors whole. The pickle is
not run. Facts from the tool's public code (`sft.py`); it is not on the package index, so the tests' files are written
by torch.save from the same objects.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from diffpack.bridges.bridge import Bridge, Import
from diffpack.bridges.importing import (
    Added,
    BaseTensor,
    Make,
    Whole,
    needed,
    refuse_missing,
    sorted_positions,
    write_patch,
)
from diffpack.checkpoints.stored_tensor import StoredTensor
from diffpack.checkpoints.torch_archive import load_torch
from diffpack.checkpoints.torch_stand_ins import is_size
from diffpack.checkpoints.weights_file import WeightsFile
from diffpack.errors import CheckpointError, CorruptFileError, UsageError, WrongBaseError
from diffpack.format import limits
from diffpack.support.names import printable
from diffpack.tensors.dtypes import to_float
from diffpack.tensors.info import TensorInfo

FILE = "pytorch_diff.bin"
_MEMBERS = {"size", "index_steps", "values"}


def _detect(path: Path) -> bool:
    return (path / FILE).is_file() or (path.name == FILE and path.is_file())


def _read(job: Import, file: BinaryIO) -> None:
    path = job.source / FILE if job.source.is_dir() else job.source
    opened = WeightsFile(path, mmap=False)
    loaded = load_torch(opened)
    _check_sums(path)
    if not isinstance(loaded, dict) or not set(loaded) <= {"diffs", "abs"} or not loaded:
        raise CheckpointError(f"{path}: not a sparse fine-tuning: no dict of 'diffs' and 'abs'")
    diffs, dense = (_named(loaded.get(key, {}), f"{path}: {key}") for key in ("diffs", "abs"))
    both = diffs.keys() & dense.keys()
    if both:
        raise CorruptFileError(f"{path}: {printable(min(both))} is both added to and replaced")
    changes: dict[str, Make] = {name: partial(_added, path, name, item) for name, item in diffs.items()}
    changes |= {name: partial(_replaced, path, name, item) for name, item in dense.items()}
    refuse_missing(job, changes)
    write_patch(job, file, changes, {})
    opened.close()


def _check_sums(path: Path) -> None:
    """Compare the checksums of all members, which torch can be told to leave out. Raises `CorruptFileError`."""
    if not zipfile.is_zipfile(path):  # torch before 1.6, which wrote none
        return
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            try:
                if member.CRC:
                    archive.read(member)
            except Exception as error:  # what a damaged member leads zipfile to is anyone's guess
                raise CorruptFileError(f"{path}: damaged: {printable(member.filename)}: {error}") from None


def _named(members: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(members, dict) or not all(isinstance(name, str) for name in members):
        raise CheckpointError(f"{where}: not a dict of names")
    return members


def _added(path: Path, name: str, item: Any, base: BaseTensor | None) -> Added:
    where = f"{path}: {printable(name)}"
    info, _ = needed(base, where)
    if not isinstance(item, dict) or set(item) != _MEMBERS or not isinstance(item["values"], StoredTensor):
        raise CheckpointError(f"{where}: not a sparse difference (size, index_steps, values)")
    shape, values = item["size"], item["values"]
    told = values.check(where)
    if not isinstance(shape, tuple) or len(shape) > limits.DIMENSIONS or not all(map(is_size, shape)):
        raise CheckpointError(f"{where}: damaged: its size is no shape")
    if shape != info.shape:
        raise WrongBaseError(f"{where}: of the shape {shape!r}, the base's tensor is {info}", (name,))
    if not told.dtype.arithmetic:
        raise UsageError(f"{where}: differences of {told.dtype.name} are not added")
    flat = _positions(item["index_steps"], prod(info.shape), where)
    if flat.size != told.words or len(told.shape) != 1:
        raise CorruptFileError(f"{where}: {flat.size} positions and values of the shape {told.shape}")
    positions = _c_order(flat, info)
    positions, order = sorted_positions(positions, info.words, where)
    numbers = to_float(values.words(told), told.dtype)
    return Added(positions, numbers if order is None else numbers[order])


def _positions(steps: Any, count: int, where: str) -> npt.NDArray[np.int64]:
    """Add up the gaps, none of which may leave the tensor: so no sum overflows."""
    if not isinstance(steps, list) or not all(
        type(step) is int and 0 <= step < min(max(count, 1), limits.WORDS) for step in steps
    ):
        raise CorruptFileError(f"{where}: index_steps are no steps inside its {count} entries")
    positions = np.cumsum(np.array(steps, np.int64), dtype=np.int64)
    if positions.size > count or (positions.size and (int(positions.max()) >= count or int(positions.min()) < 0)):
        raise CorruptFileError(f"{where}: index_steps lead outside its {count} entries")
    return positions


def _c_order(flat: npt.NDArray[np.int64], info: TensorInfo) -> npt.NDArray[np.int64]:
    """Turn positions that count the first dimension fastest into those that count the last one fastest."""
    if len(info.shape) < 2 or not flat.size:
        return flat
    index = np.unravel_index(flat, info.shape, order="F")
    positions: npt.NDArray[np.int64] = np.ravel_multi_index(index, info.shape)
    return positions


def _replaced(path: Path, name: str, item: Any, base: BaseTensor | None) -> Whole:
    where = f"{path}: {printable(name)}"
    info, _ = needed(base, where)
    if not isinstance(item, StoredTensor):
        raise CheckpointError(f"{where}: not a tensor")
    told = item.check(where)
    if told != info:
        raise WrongBaseError(f"{where}: is {told}, the base's {info}", (name,))
    return Whole(told, item.words(told))


BRIDGE = Bridge(_detect, _read)
