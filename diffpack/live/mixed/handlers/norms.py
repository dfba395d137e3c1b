"""Norms: the weights of each row's task, stacked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from diffpack.live.mixed.handler import Handler
from diffpack.live.mixed.replaced import replaced


class Stacked(Handler):
    """A norm over the last dimensions whose weights each row has of its own."""

    def stacked(self, attribute: str, x: Tensor, dtype: torch.dtype) -> Tensor | None:
        """A parameter, (rows, 1, ..., its own dimensions), to be broadcast to x; None if the module has none."""
        changed = self.changes.get(attribute)
        tensor: Tensor | None = getattr(self.module, attribute, None)
        if tensor is None or changed is None:
            return None if tensor is None else tensor.to(dtype)
        by_group = torch.stack([changed.whole(group) for group in self.rows.groups]).to(dtype)
        between = (1,) * (x.dim() - tensor.dim() - 1)
        return self.rows.by_row(by_group).view(self.rows.count, *between, *tensor.shape)

    def check_norm(self, x: Tensor, dimensions: int) -> None:
        """Raise `UsageError` unless there are rows before the dimensions that are normed."""
        self.check_rows(x, dimensions + 1)


class LayerNorm(Stacked):
    """`nn.LayerNorm`, computed in float32 or wider and rounded once, as torch does."""

    knows: ClassVar = frozenset(["weight", "bias"])

    def __call__(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """The normed rows."""
        del original
        x: Tensor = args[0] if args else kwargs["input"]
        shape: tuple[int, ...] = tuple(self.module.normalized_shape)  # type: ignore[arg-type]  # nn.LayerNorm has it
        self.check_norm(x, len(shape))
        wide = torch.float64 if x.dtype == torch.float64 else torch.float32
        normed = functional.layer_norm(x.to(wide), shape, None, None, float(self.module.eps))  # type: ignore[arg-type]  # as above
        weight, bias = self.stacked("weight", x, wide), self.stacked("bias", x, wide)
        if weight is not None:
            normed = normed.mul_(weight)
        if bias is not None:
            normed = normed.add_(bias)
        return normed.to(x.dtype)


class ScaledNorm(Stacked):
    """The norms of transformers' models that multiply by their only parameter, `weight`, whatever its shape."""

    knows: ClassVar = frozenset(["weight"])

    def __call__(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The normed rows."""
        x: Tensor = args[0] if args else next(iter(kwargs.values()))
        self.check_norm(x, 1)
        weight = self.stacked("weight", x, self.changes["weight"].tensor.dtype)
        assert weight is not None
        with replaced([(self.module, "weight", weight)]):
            return original(*args, **kwargs)
