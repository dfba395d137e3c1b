"""SparseTuner: train a few entries of any model, as compact vectors, with any torch optimiser.

::

    tuner = SparseTuner(model, positions, dense=["classifier.weight", "classifier.bias"])
    optimiser = tuner.attach(torch.optim.AdamW(tuner.parameters(), lr=1e-3))
    for batch in batches:
        model(**batch).loss.backward()  # hooks gather grad[positions] into the compact vectors, and drop the rest
        tuner.clip(1.0)
        optimiser.step()  # afterwards the compact vectors are written to their places
    tuner.close()

The module keeps its parameters, its state dict and its forward pass. Of a tensor's gradient, which lives only until
the next tensor's, no more is kept than the chosen entries; embeddings give the rows in use only (their flag `sparse`,
until `close`); the optimiser's state is as large as the chosen entries. The method
is that of SIFT (Song et al. 2024, arXiv 2405.16700, section 3.3), for any positions.

With `torch.distributed` running, the compact gradients are averaged over the processes before they are clipped or used.
`DistributedDataParallel` is told to leave the tuned tensors alone, because its own reduction starts after the
hooks; it goes on averaging those in `dense`. Where nothing is left for it, do without it: the tuner averages.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, distributed, nn
from torch.utils.hooks import RemovableHandle

from diffpack.errors import UsageError
from diffpack.train.tuners.slot import Slot, make_slot

Positions = Mapping[str, Tensor | None]
"""Parameter name -> sorted flat positions (int64, C order) that are trained; None trains all of a tensor."""


class SparseTuner:
    """Trains chosen entries of a module's parameters; everything else is frozen until `close`.

    `positions` says which entries of which parameters; `dense` names parameters that are trained as they are (a new
    head). A parameter of a half-precision dtype named there gets a float32 master like any other. Tied parameters
    may be named by any of their names, once. With `torch.distributed` running, rank 0's positions and values count.

    Raises `UsageError` for a name the model lacks or has twice, for positions that are not sorted, unique and within
    the tensor, and for parameters that do not lie contiguously in memory.
    """

    def __init__(self, model: nn.Module, positions: Positions, dense: Iterable[str] = ()) -> None:
        self._model = model
        named = dict(model.named_parameters(remove_duplicate=False))
        dense = list(dense)
        wanted = _unique(named, [*positions, *dense])
        half = [name for name in dense if wanted[name].dtype in (torch.bfloat16, torch.float16)]
        self._frozen = {name: value.requires_grad for name, value in model.named_parameters()}
        self.dense = {name: wanted[name] for name in dense if name not in half}
        slots = {**positions, **dict.fromkeys(half)}
        self.slots = [make_slot(name, wanted[name], where) for name, where in slots.items()]
        _share_positions(self.slots)
        trained = {id(value) for value in wanted.values()}
        for value in model.parameters():
            value.requires_grad_(id(value) in trained)
            if id(value) in trained:
                value.grad = None
        self._handles: list[RemovableHandle] = [
            slot.parameter.register_post_accumulate_grad_hook(partial(self._take, slot)) for slot in self.slots
        ]
        self._averaged = False
        self._embeddings = self._row_wise()
        self._hide_from_ddp(named)

    def parameters(self) -> list[nn.Parameter]:
        """What an optimiser trains: the compact vectors, then the dense parameters."""
        return [*(slot.values for slot in self.slots), *self.dense.values()]

    @property
    def trained(self) -> int:
        """How many entries are trained."""
        return sum(value.numel() for value in self.parameters())

    def attach(self, optimiser: torch.optim.Optimizer) -> torch.optim.Optimizer:
        """Let an optimiser of `parameters()` average before and write the values after each of its steps."""
        self._handles.append(optimiser.register_step_pre_hook(lambda *_: self.average()))
        self._handles.append(optimiser.register_step_post_hook(lambda *_: self.write()))
        return optimiser

    def _take(self, slot: Slot, parameter: Tensor) -> None:
        self._averaged = False  # also where the step after the last average was left out
        slot.take_gradient(parameter)

    def average(self) -> None:
        """Average the compact gradients over all processes, once a step; nothing to do in a single one."""
        if self._averaged or not _distributed():
            return
        missing = [slot for slot in self.slots if slot.values.grad is None]
        for slot in missing:  # a tensor this process had no use for in this step
            slot.values.grad = torch.zeros_like(slot.values)
        if self.slots:
            together = torch.cat([_gradient(slot) for slot in self.slots])
            distributed.all_reduce(together)
            together /= distributed.get_world_size()
            sizes = [slot.values.numel() for slot in self.slots]
            for slot, part in zip(self.slots, together.split(sizes), strict=True):
                _gradient(slot).copy_(part)
        self._averaged = True

    def clip(self, max_norm: float) -> Tensor:
        """Average, then clip the norm of all trained gradients together; give the norm before, a scalar."""
        self.average()
        return torch.nn.utils.clip_grad_norm_(self.parameters(), max_norm)

    def write(self) -> None:
        """Write the compact vectors into the module and drop their gradients."""
        for slot in self.slots:
            slot.scatter()
            slot.values.grad = None
        self._averaged = False

    def close(self) -> None:
        """Take the hooks off and unfreeze what was frozen; the module keeps the trained values."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        for name, value in self._model.named_parameters():
            value.requires_grad_(self._frozen[name])
        for module in self._embeddings:
            module.sparse = False
        if hasattr(self._model, _DDP_IGNORES):
            delattr(self._model, _DDP_IGNORES)

    def state_dict(self) -> dict[str, Any]:
        """Positions and values, to go on later; a half-precision module alone would lose the masters' bits."""
        return {
            "positions": {slot.name: slot.positions for slot in self.slots},
            "values": {slot.name: slot.values.detach().clone() for slot in self.slots},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take positions and values of a tuner of the same tensors, and write them."""
        for slot in self.slots:
            slot.positions = state["positions"][slot.name]
            slot.values.detach().copy_(state["values"][slot.name])
            slot.scatter()

    def _row_wise(self) -> list[nn.Embedding]:
        """Let embeddings give gradients of the rows in use alone; a whole one is often the largest of the model.

        Not those whose weights serve elsewhere too (tied output), or are trained whole, or rescale gradients.
        """
        owners: dict[int, list[nn.Module]] = {}
        for module in self._model.modules():
            for value in module.parameters(recurse=False):
                owners.setdefault(id(value), []).append(module)
        chosen = []
        for slot in self.slots:
            module, *others = owners.get(id(slot.parameter), [self._model])
            plain = isinstance(module, nn.Embedding) and not (module.sparse or module.scale_grad_by_freq)
            if isinstance(module, nn.Embedding) and plain and not others and slot.positions is not None:
                module.sparse = True
                chosen.append(module)
        return chosen

    def _hide_from_ddp(self, named: Mapping[str, nn.Parameter]) -> None:
        if not _distributed():
            return
        tuned = {id(slot.parameter) for slot in self.slots}
        names = [name for name, value in named.items() if id(value) in tuned]
        setattr(self._model, _DDP_IGNORES, names)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_DDP_IGNORES = "_ddp_params_and_buffers_to_ignore"
"""The attribute by which DistributedDataParallel is told of tensors that are none of its business."""


def _unique(named: Mapping[str, nn.Parameter], names: list[str]) -> dict[str, nn.Parameter]:
    parameters: dict[str, nn.Parameter] = {}
    owner: dict[int, str] = {}
    for name in names:
        if name not in named:
            raise UsageError(f"the model has no parameter {name!r}")
        value = named[name]
        if id(value) in owner:
            raise UsageError(f"{name!r} and {owner[id(value)]!r} are one (tied) parameter; name it once")
        if not value.is_contiguous():
            raise UsageError(f"{name!r} does not lie contiguously in memory; flat positions need that")
        owner[id(value)] = name
        parameters[name] = value
    return parameters


def _share_positions(slots: list[Slot]) -> None:
    """Give every process rank 0's positions and values: scores of different data would pick different ones."""
    if not _distributed():
        return
    box: list[Any] = [[(slot.positions, slot.values.detach()) for slot in slots]]
    distributed.broadcast_object_list(box)
    for slot, (positions, values) in zip(slots, box[0], strict=True):
        device = slot.parameter.device
        slot.positions = None if positions is None else positions.to(device)
        slot.values = nn.Parameter(values.to(device))
        slot.scatter()


def _gradient(slot: Slot) -> Tensor:
    assert slot.values.grad is not None
    return slot.values.grad


def _distributed() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
