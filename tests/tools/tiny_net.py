"""A tiny network, positions in it and batches for it: what the tuner's tests train."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

LR = 0.01


class Net(nn.Module):
    """An embedding, a matrix, a bias; the output may be tied to the embedding."""

    def __init__(self, tied: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(20, 8)
        self.hidden = nn.Linear(8, 8)
        self.out = nn.Linear(8, 20, bias=False)
        if tied:
            self.out.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor) -> Any:
        return self.out(torch.tanh(self.hidden(self.embed(tokens)))).square().mean()


class NetWithLoss(Net):
    """The same as transformers' Trainer wants it."""

    def forward(self, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": super().forward(tokens)}


def picked(model: nn.Module, every: int = 5) -> dict[str, torch.Tensor]:
    """Every so-manieth entry of each parameter, from the second on."""
    return {name: torch.arange(1, value.numel(), every) for name, value in model.named_parameters()}


def batches(count: int = 4) -> list[torch.Tensor]:
    """The same batches of three texts of four tokens each time."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, 20, (3, 4), generator=generator) for _ in range(count)]
