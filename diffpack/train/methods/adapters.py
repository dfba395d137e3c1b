"""Houlsby adapters: two serial bottlenecks a layer (Houlsby et al. 2019, arXiv 1902.00751).

Each stands behind a sub-layer's projection and its dropout, before the residual is added: h + up(gelu(down(h))). The
adapters, all LayerNorms and the head are trained. They start near the identity: truncated normal, standard
deviation 1e-3 (the paper's code; its text says 1e-2), biases 0. `size` 64 by default, the paper's fixed size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from diffpack.errors import UsageError
from diffpack.train.loop.stage import DenseStage, Stage
from diffpack.train.methods.defaults import ADAPTER_LR, ADAPTER_WARMUP, epochs_of, lr_of
from diffpack.train.model import encoder_layers
from diffpack.train.task import Task

SIZE = 64
INIT_STD = 1e-3
_PLACES = ("attention.output", "output")
"""The two sub-layers' ends in BERT and its kin (RoBERTa, ELECTRA); each has a `dropout` before its LayerNorm."""


class Adapter(nn.Module):
    """A bottleneck with a skip around it: d -> size -> d. 2 x size x d + d + size parameters."""

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, size)
        self.up = nn.Linear(size, width)
        for part in (self.down, self.up):
            nn.init.trunc_normal_(part.weight, std=INIT_STD, a=-2 * INIT_STD, b=2 * INIT_STD)
            nn.init.zeros_(part.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Hidden states of the same shape (..., d)."""
        output: Tensor = hidden + self.up(nn.functional.gelu(self.down(hidden)))
        return output


def insert_adapters(model: nn.Module, size: int) -> None:
    """Add adapters to every layer, as new sub-modules `adapter`; the other modules keep their names.

    Raises `UsageError` if the layers are not built like BERT's.
    """
    for prefix, layer in encoder_layers(model):
        for place in _PLACES:
            try:
                end = layer.get_submodule(place)
                dropout, norm = end.get_submodule("dropout"), end.get_submodule("LayerNorm")
            except AttributeError:
                raise UsageError(f"{prefix}: not a layer like BERT's ({place}.dropout); adapters do not fit") from None
            weight = next(norm.parameters())
            adapter = Adapter(weight.numel(), size).to(weight.dtype)
            end.add_module("adapter", adapter)
            dropout.register_forward_hook(lambda _module, _inputs, output, adapter=adapter: adapter(output))


def houlsby(task: Task) -> Sequence[Stage]:
    """Insert adapters and train them."""
    size = task.options.size or SIZE
    torch.manual_seed(task.options.seed)
    insert_adapters(task.model, size)
    task.builder.update(kind="houlsby", size=size, activation="gelu")
    return [
        DenseStage(
            epochs_of(task.options), lr_of(task.options, ADAPTER_LR), _trained, name="training", warmup=ADAPTER_WARMUP
        )
    ]


def _trained(task: Task) -> list[str]:
    return [name for name in task.body if ".adapter." in name or "LayerNorm" in name]


def rebuild(model: nn.Module, builder: dict[str, Any]) -> None:
    """Add the adapters that a file's metadata describes."""
    insert_adapters(model, int(builder["size"]))
