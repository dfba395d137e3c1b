"""Selections by place in the network: biases alone (BitFit), the top layers, the last one, the head."""

from __future__ import annotations

from torch import nn

from diffpack.train.model import body_parameters, top_layers


def biases(model: nn.Module, head: list[str]) -> list[str]:
    """Name all biases of the body, LayerNorm's too (BitFit: Ben Zaken, Goldberg, Ravfogel 2022, arXiv 2106.10199)."""
    return [name for name in body_parameters(model, head) if name.endswith("bias")]


def layers(model: nn.Module, head: list[str], count: int) -> list[str]:
    """Name the body's parameters in the top `count` layers and above (variable fine-tuning: Houlsby et al. 2019)."""
    return [name for name in top_layers(model, count) if name not in set(head)]
