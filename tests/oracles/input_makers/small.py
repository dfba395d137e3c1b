"""The small torch modules of the cases that need no architecture of a library."""

from __future__ import annotations

import torch
from torch import nn


class Small(nn.Module):
    """An embedding, a tied head, a convolution with batch norm (an integer buffer), a half-precision layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.layers = nn.ModuleList([nn.Linear(8, 12), nn.Linear(12, 8)])
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.coarse = nn.Linear(8, 4).to(torch.bfloat16)
        self.head = nn.Linear(8, 20, bias=False)
        self.head.weight = self.embed.weight


def small() -> Small:
    torch.manual_seed(2026)
    return Small()
