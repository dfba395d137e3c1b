"""Tensors of modules exchanged for a while: the module computes with others, the model's own are not touched."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def replaced(tensors: Iterable[tuple[nn.Module, str, Tensor]]) -> Iterator[None]:
    """Let parameters and buffers, each (module that owns it, its name there, tensor), be others meanwhile."""
    before: list[tuple[dict[str, Any], str, Tensor | None]] = []
    try:
        for owner, attribute, tensor in tensors:
            own: dict[str, Any] = owner._parameters if attribute in owner._parameters else owner._buffers
            before.append((own, attribute, own[attribute]))
            own[attribute] = tensor
        yield
    finally:
        for own, attribute, tensor_before in reversed(before):
            own[attribute] = tensor_before
