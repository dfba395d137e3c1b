"""A matrix of which few entries are not zero, and its product with rows of inputs."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

_GATHERED_ENTRIES = 1 << 22
"""How many products of an input and a weight are held at once where torch has no sparse product."""


@dataclass(frozen=True, eq=False)
class SparseMatrix:
    """A matrix (inputs, outputs) of floats by its entries, sorted by output: `inputs`, `values`, `starts` by output.

    `compressed` is the same for torch's sparse product, where it has one.
    """

    inputs: Tensor
    outputs: Tensor
    values: Tensor
    compressed: Tensor | None

    @classmethod
    def of(cls, index: Tensor, values: Tensor, shape: torch.Size, *, inputs_first: bool) -> Self:
        """From sorted flat positions in a matrix of that shape, (inputs, outputs) or the other way round."""
        first, second = index.div(shape[1], rounding_mode="floor"), index.remainder(shape[1])
        if not inputs_first:
            outputs, inputs = first, second
            counts = shape[1], shape[0]
        else:
            order = second.argsort(stable=True)
            inputs, outputs, values = first[order], second[order], values[order]
            counts = shape[0], shape[1]
        if index.device.type == "cuda" or (index.device.type == "cpu" and torch.backends.mkl.is_available()):
            compressed = _compressed(inputs, outputs, values, counts)
            return cls(compressed.row_indices(), compressed.ccol_indices(), compressed.values(), compressed)
        return cls(inputs, outputs, values, None)

    @property
    def nbytes(self) -> int:
        """Bytes of what is held."""
        return self.inputs.nbytes + self.outputs.nbytes + self.values.nbytes

    def add_product(self, y: Tensor, x: Tensor) -> None:
        """Add to y (rows, outputs), in place, the product of x (rows, inputs) with it; all are of its dtype."""
        if self.compressed is not None:
            y.addmm_(x, self.compressed)
            return
        step = max(1, _GATHERED_ENTRIES // max(1, self.values.numel()))
        for start in range(0, x.shape[0], step):
            products = x[start : start + step].index_select(1, self.inputs).mul_(self.values)
            y[start : start + step].index_add_(1, self.outputs, products)


@dataclass(frozen=True, eq=False)
class LowRankMatrix:
    """A matrix (inputs, outputs): `first` (inputs, rank) times `second` (rank, outputs), and `rest`."""

    first: Tensor
    second: Tensor
    rest: SparseMatrix | None

    @property
    def nbytes(self) -> int:
        """Bytes of what is held."""
        return self.first.nbytes + self.second.nbytes + (0 if self.rest is None else self.rest.nbytes)

    def add_product(self, y: Tensor, x: Tensor) -> None:
        """Add to y (rows, outputs), in place, the product of x (rows, inputs) with it; all are of its dtype."""
        y.addmm_(x @ self.first, self.second)
        if self.rest is not None:
            self.rest.add_product(y, x)


def _compressed(inputs: Tensor, outputs: Tensor, values: Tensor, size: tuple[int, int]) -> Tensor:
    starts = torch.searchsorted(outputs, torch.arange(size[1] + 1, device=outputs.device, dtype=outputs.dtype))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSC tensor support is in beta state")
        return torch.sparse_csc_tensor(starts.to(inputs.dtype), inputs, values, size, check_invariants=True)
