"""What merging an adapter makes of one tensor of the base.

LoRA (arXiv 2106.09685): W + scale x B A. DoRA (arXiv 2402.09353): that, with each column of the paper's notation
(the weights of one output, of an embedding one dimension) brought to a magnitude of its own. Trained tokens: rows
are replaced. Computed the same way on every machine: rank by rank in float64, rounded once to float32, added to the
base in float32 and rounded once to its dtype.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from diffpack.algebra.sums import Sums
from diffpack.bridges.formats.peft_adapter import MERGE, Adapter
from diffpack.bridges.formats.peft_factors import Layer, Matrix, factor
from diffpack.bridges.importing import BaseTensor, Whole
from diffpack.errors import CorruptFileError, UsageError, WrongBaseError
from diffpack.support.names import printable
from diffpack.tensors.dtypes import Words, to_float
from diffpack.tensors.info import TensorInfo
from diffpack.tensors.reference import convert

_WEIGHT = ".weight"
_BLOCK_ENTRIES = 1 << 18
"""Entries of the product made at a time: they stay in cache while the ranks are added."""

Vector = npt.NDArray[np.float64]


def merged(adapter: Adapter, layer: Layer, turned: bool, sums: Sums, base: BaseTensor) -> Whole:
    """A weight with its layer's product added, and brought to DoRA's magnitudes where the adapter has them.

    `turned` says that the weight is (in, out). Raises `WrongBaseError` (shapes), `CorruptFileError` (a change that is
    not finite), `UsageError` (nothing is added to such a dtype).
    """
    where = f"{adapter.path}: {printable(layer.module)}"
    info, before = base
    left, right = sides(adapter, layer, turned, info)
    product = _Product(left, right, layer.scale)
    factors = _magnifying(adapter, layer, turned, product, base, where) if layer.magnitude in adapter.keys else None
    result = np.empty_like(before)
    for part, delta in product.blocks():
        change = (
            delta if factors is None else _magnified(before[part], info, delta, factors, part, right.shape[1], turned)
        )
        if not np.isfinite(change).all():
            raise CorruptFileError(f"{where}: its change is not finite")
        result[part] = sums.add(layer.module + _WEIGHT, before[part], change, info)
    return Whole(info, result, lossy=True)


def sides(adapter: Adapter, layer: Layer, turned: bool, info: TensorInfo) -> tuple[Matrix, Matrix]:
    """The factors (rows, rank) and (rank, columns) of which a weight's change is the product, times the layer's scale.

    `info` is the weight's; its columns are all dimensions but the first. Raises `WrongBaseError` (shapes),
    `UsageError` (nothing is added to such a dtype).
    """
    where = f"{adapter.path}: {printable(layer.module)}"
    if not info.dtype.arithmetic:
        raise UsageError(f"{where}: nothing is added to {info.dtype.name} weights; give the base in its full precision")
    first, second = factor(adapter, layer.module + layer.first), factor(adapter, layer.module + layer.second)
    left, right = (first.T, second.T) if turned else (second, first)  # (B A) turned
    shape = (left.shape[0], right.shape[1])
    rows = info.shape[0] if info.shape else 0
    if left.shape[1] != right.shape[0] or shape != (rows, info.words // rows if rows else 0):
        raise WrongBaseError(
            f"{where}: factors of {first.shape} and {second.shape} for the base's {info}{adapter.made_for}",
            (layer.module,),
        )
    return left, right


class _Product:
    """scale x left right, in blocks of whole rows: rank by rank, so that no machine adds in another order."""

    def __init__(self, left: Matrix, right: Matrix, scale: float) -> None:
        self._left, self._right, self._scale = left, right, scale

    def blocks(self) -> Iterator[tuple[slice, Vector]]:
        """Which entries (C order), and their values."""
        columns = self._right.shape[1]
        step = max(1, _BLOCK_ENTRIES // max(columns, 1))
        for start in range(0, self._left.shape[0], step):
            left = self._left[start : start + step]
            total = np.zeros((left.shape[0], columns))
            with np.errstate(over="ignore", invalid="ignore"):
                for at in range(self._right.shape[0]):
                    total += left[:, at : at + 1] * self._right[at]
                total *= self._scale
            yield slice(start * columns, start * columns + total.size), total.reshape(-1)


def _magnifying(
    adapter: Adapter, layer: Layer, turned: bool, product: _Product, base: BaseTensor, where: str
) -> Vector:
    """Magnitude over norm of each output. Norms are summed up along the slow axis, which numpy does one by one."""
    info, before = base
    magnitudes = factor(adapter, layer.magnitude).reshape(-1)
    columns = info.words // info.shape[0]
    count = columns if turned else info.shape[0]
    if magnitudes.size != count:
        raise WrongBaseError(f"{where}: {magnitudes.size} magnitudes for the base's {info}", (layer.module,))
    squares = np.zeros(count)
    with np.errstate(all="ignore"):  # what is not finite is refused when it is added
        for part, delta in product.blocks():
            weight = (_wide(before[part], info) + delta).reshape(-1, columns)
            if turned:
                for row in weight:
                    squares += row * row
            else:
                first = part.start // columns
                squares[first : first + weight.shape[0]] = np.add.reduce(np.ascontiguousarray(weight.T) ** 2, axis=0)
        factors: Vector = magnitudes / np.sqrt(squares)
    return factors


def _magnified(
    before: Words, info: TensorInfo, delta: Vector, factors: Vector, part: slice, columns: int, turned: bool
) -> Vector:
    """What is added to a block so that it becomes factors x (W + delta)."""
    weight = _wide(before, info)
    first = part.start // columns
    own = (
        np.tile(factors, weight.size // columns)
        if turned
        else factors[first : first + weight.size // columns].repeat(columns)
    )
    with np.errstate(all="ignore"):  # what is not finite is refused when it is added
        change: Vector = own * (weight + delta) - weight
    return change


def _wide(words: Words, info: TensorInfo) -> Vector:
    return to_float(words, info.dtype).astype(np.float64)


def biased(adapter: Adapter, layer: Layer, sums: Sums, base: BaseTensor) -> Whole:
    """A bias with its layer's change of it added. Raises `WrongBaseError` if that does not fit."""
    where = f"{adapter.path}: {printable(layer.module)}.bias"
    info, before = base
    change = factor(adapter, layer.module + layer.second).reshape(-1) * layer.scale
    if change.size != info.words or not info.dtype.arithmetic or not np.isfinite(change).all():
        raise WrongBaseError(
            f"{where}: {change.size} finite numbers to add to the base's {info}{adapter.made_for}", (layer.module,)
        )
    return Whole(info, sums.add(f"{layer.module}.bias", before, change, info), lossy=True)


def with_rows(adapter: Adapter, name: str, rows: list[int], sums: Sums, base: BaseTensor) -> Whole:
    """An embedding with the rows of trained tokens replaced, rounded to the base's dtype.

    Raises `WrongBaseError` if they do not fit, `UsageError` for dtypes that cannot be rounded.
    """
    where = f"{adapter.path}: {printable(name)}"
    info, before = base
    stored, words = adapter.weights.info(adapter.keys[name]), adapter.weights.words(adapter.keys[name])
    if len(info.shape) != 2 or stored.shape != (len(rows), info.shape[1]) or (rows and max(rows) >= info.shape[0]):
        which = f"{len(rows)} rows up to {max(rows, default=0)}"
        raise WrongBaseError(f"{where}: {stored} for {which} of the base's {info}{adapter.made_for}", (name,))
    if stored.dtype != info.dtype and not (stored.dtype.arithmetic and info.dtype.arithmetic):
        raise UsageError(f"{where}: {stored.dtype.name} rows for {info.dtype.name} weights; {MERGE}")
    rounded = words if stored.dtype == info.dtype else sums.rounded(name, words, stored.dtype, info.dtype)
    lossy = stored.dtype != info.dtype and not np.array_equal(convert(rounded, info.dtype, stored.dtype), words)
    result = np.array(before).reshape(info.shape[0], -1)
    result[rows] = rounded.reshape(len(rows), -1)
    return Whole(info, result.reshape(-1), lossy=lossy)
