"""What `torch.distributed` asks of a tuner: one set of positions, averaged gradients, a wrapper that keeps out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, distributed, nn

from diffpack.errors import UsageError
from diffpack.train.tuners.slot import Slot

with contextlib.suppress(ImportError):  # a torch built without it
    # Its functions have the group that exists at its import for a default argument. torch.optim imports it with the
    # first optimiser, so a group made before would outlive destroy_process_group, and its threads run on into the
    # interpreter's end, where one that lets go of a tensor takes the process down (pytorch/pytorch#190489).
    import torch.distributed.nn.functional

DDP_IGNORES = "_ddp_params_and_buffers_to_ignore"
"""The attribute by which DistributedDataParallel is told of tensors that are none of its business."""


def several() -> bool:
    """Whether there are other processes to agree with."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def share_positions(slots: Sequence[Slot]) -> None:
    """Give every process rank 0's positions and values: scores of different data would pick different ones."""
    box: list[Any] = [[(slot.positions, slot.values.detach()) for slot in slots]]
    distributed.broadcast_object_list(box)
    for slot, (positions, values) in zip(slots, box[0], strict=True):
        device = slot.parameter.device
        slot.positions = None if positions is None else positions.to(device)
        slot.values = nn.Parameter(values.to(device))
        slot.scatter()
        slot.keep()


def average_gradients(slots: Sequence[Slot], reloaded: bool) -> None:
    """Average the slots' gradients over all processes.

    Raises `UsageError` in all of them if some, but not all, have `reloaded` weights: they would train different models.
    """
    for slot in slots:
        if slot.values.grad is None:  # a tensor this process had no use for in this step
            slot.values.grad = torch.zeros_like(slot.values)
    if not slots:
        return
    gradients = [_gradient(slot) for slot in slots]
    count = gradients[0].new_full((1,), float(reloaded))
    together = torch.cat([*gradients, count])
    distributed.all_reduce(together)
    processes = distributed.get_world_size()
    *parts, total = together.split([*(value.numel() for value in gradients), 1])
    if 0 < round(float(total)) < processes:
        raise UsageError(
            f"{round(float(total))} of {processes} processes have loaded other weights under their tuner; load in all"
        )
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part / processes)


def hide_from_ddp(model: nn.Module, named: Mapping[str, nn.Parameter], slots: Iterable[Slot]) -> None:
    """Tell a DistributedDataParallel that is still to be made to leave the tuned tensors alone."""
    tuned = {id(slot.parameter) for slot in slots}
    setattr(model, DDP_IGNORES, [name for name, value in named.items() if id(value) in tuned])


def _gradient(slot: Slot) -> Tensor:
    assert slot.values.grad is not None
    return slot.values.grad
