"""Mixed precision: what the forward and backward pass compute in, while weights and optimisers stay as they are."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def autocast(precision: str) -> AbstractContextManager[object]:
    """The context a forward pass runs in: "bf16" takes matrix products in bfloat16, "fp32" changes nothing.

    torch's autocast: weights stay as loaded, the loss and its reductions are float32, gradients have their weights'
    dtype. The backward pass takes each product in the forward pass's type and stands outside the context.
    """
    return torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext()
