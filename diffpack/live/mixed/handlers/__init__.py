"""Which handler answers for which module: by its forward, by its class in transformers, by its place in a parent."""

from __future__ import annotations

from typing import Any

from torch import nn

from diffpack.live.mixed.handler import Handler
from diffpack.live.mixed.handlers.embedding import Embedding
from diffpack.live.mixed.handlers.linear import InputsFirst, Linear
from diffpack.live.mixed.handlers.norms import LayerNorm, ScaledNorm
from diffpack.live.mixed.handlers.row_by_row import OfRank, RowByRow, forward_of, is_declared
from diffpack.live.mixed.handlers.shared import Positions, Shared, SharedOfOne

_BY_FORWARD: dict[Any, type[Handler]] = {
    nn.Linear.forward: Linear,
    nn.Embedding.forward: Embedding,
    nn.LayerNorm.forward: LayerNorm,
    nn.RMSNorm.forward: OfRank,
    nn.GroupNorm.forward: OfRank,
    nn.BatchNorm1d.forward: OfRank,  # of all ranks; not in training
    nn.Conv1d.forward: OfRank,
    nn.Conv2d.forward: OfRank,
    nn.Conv3d.forward: OfRank,
    nn.PReLU.forward: OfRank,
}
"""Subclasses that keep the forward are meant, too."""
_TRANSFORMERS = "transformers."
_BY_CLASS: dict[str, type[Handler]] = {
    "Conv1D": InputsFirst,
    "ViTEmbeddings": RowByRow,
    "WhisperPositionalEmbedding": Positions,
}
_BY_PARENT: dict[tuple[str, str], tuple[str, type[Handler]]] = {
    ("WhisperEncoder", "embed_positions"): ("", Shared),
    ("T5Attention", "relative_attention_bias"): ("compute_bias", SharedOfOne),
    ("MT5Attention", "relative_attention_bias"): ("compute_bias", SharedOfOne),
    ("UMT5Attention", "relative_attention_bias"): ("compute_bias", SharedOfOne),
}
"""(The class of the parent, the child's name there) -> the parent's method ("": the child's forward), its handler."""
_NORMS = ("RMSNorm", "LayerNorm")


def handler_of(module: nn.Module) -> type[Handler] | None:
    """The handler for a module's forward; None if nothing is known about it."""
    if is_declared(module):
        return RowByRow
    kind = type(module)
    by_forward = _BY_FORWARD.get(forward_of(kind))
    if by_forward is not None:
        return by_forward
    theirs = _is_theirs(module)
    if theirs and kind.__name__ in _BY_CLASS:
        return _BY_CLASS[kind.__name__]
    if kind.__name__.endswith(_NORMS) and not list(module.children()):
        own = {name for name, _ in (*module.named_parameters(), *module.named_buffers())}
        return ScaledNorm if theirs and own == {"weight"} else OfRank
    return None


def handler_in(parent: nn.Module, child: str) -> tuple[str, type[Handler]] | None:
    """For a child that a parent uses otherwise than by its forward: the parent's method and the handler for it."""
    return _BY_PARENT.get((type(parent).__name__, child)) if _is_theirs(parent) else None


def _is_theirs(module: nn.Module) -> bool:
    """Whether a module's forward is transformers' own, not one that replaced it (a kernel)."""
    return str(getattr(forward_of(type(module)), "__module__", "")).startswith(_TRANSFORMERS)
