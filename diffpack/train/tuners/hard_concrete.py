"""The stretched hard-concrete gate of diff pruning, and its expected L0 norm, with their derivatives.

Guo, Rush, Kim 2021 (arXiv 2012.07463), section 3.1, after Louizos, Welling, Kingma 2018 (arXiv 1712.01312); without a
temperature, as published. `alpha` is the gate's parameter, of any shape, float32 or float64.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

LEFT, RIGHT = -1.5, 1.5
"""The interval the sigmoid is stretched to before it is cut to [0, 1] (l and r of the paper)."""
NOISE_EDGE = 1e-4
"""The uniform noise stays this far from 0 and 1, where its logit would be infinite (the paper's code)."""
OFFSET = math.log(-LEFT / RIGHT)
"""0 for the published interval: a gate is open with probability sigmoid(alpha)."""


def sample(alpha: Tensor) -> Tensor:
    """Draw gates z in [0, 1] with torch's own random numbers."""
    noise = torch.rand_like(alpha).clamp_(NOISE_EDGE, 1 - NOISE_EDGE)
    return noise.logit_().add_(alpha).sigmoid_().mul_(RIGHT - LEFT).add_(LEFT).clamp_(0, 1)


def slope(gate: Tensor) -> Tensor:
    """The derivative dz/dalpha of drawn gates, which tell it themselves: 0 where the interval's cut holds them."""
    soft = (gate - LEFT).div_(RIGHT - LEFT)
    inside = (gate * (1 - gate)).sign_()  # as a number: faster than two comparisons
    return soft.mul_(1 - soft).mul_(RIGHT - LEFT).mul_(inside)


def open_probability(alpha: Tensor) -> Tensor:
    """P(z > 0), an entry's part in the expected L0 norm."""
    return torch.sigmoid(alpha - OFFSET)
