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

Weights may be loaded into the module at any time between two steps: an averaged model and back, the best one, an
older checkpoint. Before each step and each write the tuner compares the bits at its positions with those it left
there, and takes others over (`settle`).

With `torch.distributed` running, the compact gradients are averaged over the processes before they are clipped or used.
`DistributedDataParallel` is told to leave the tuned tensors alone, because its own reduction starts after the
hooks; it goes on averaging those in `dense`. Where nothing is left for it, do without it: the tuner averages.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from diffpack.errors import UsageError
from diffpack.train.strings import listed_strings
from diffpack.train.tuners.positions import Positions, by_parameter
from diffpack.train.tuners.processes import DDP_IGNORES, average_gradients, hide_from_ddp, several, share_positions
from diffpack.train.tuners.slot import Slot, make_slot
from diffpack.train.tuners.state import checked
from diffpack.train.tuners.untouched import Untouched


class SparseTuner:
    """Trains chosen entries of a module's parameters; everything else is frozen until `close`.

    `positions` says which entries of which parameters, as sorted flat positions (C order): a tensor, a numpy array or a
    list of whole numbers, a `TensorDiff` (its positions), None for all of a parameter; or a whole `Diff`, whose tensors
    are found also where the model's names have another prefix. `dense` names parameters that are trained as they are
    (a new head). A parameter of a half-precision dtype named there gets a float32 master like any other. Tied
    parameters may be named by any of their names, once. With `torch.distributed` running, rank 0's positions and values
    count. What the module holds when the tuner is made is the base: it is hashed once.

    Raises `UsageError` for a name the model lacks or has twice, for positions that are not whole, sorted, unique and
    within the tensor, and for parameters that do not lie contiguously in memory.
    """

    def __init__(self, model: nn.Module, positions: Positions, dense: Iterable[str] = ()) -> None:
        self._model = model
        named = dict(model.named_parameters(remove_duplicate=False))
        where = by_parameter(model, positions)
        dense = listed_strings(dense, "the names in dense")
        wanted = _unique(named, [*where, *dense])
        half = [name for name in dense if wanted[name].dtype in (torch.bfloat16, torch.float16)]
        self._frozen = {name: value.requires_grad for name, value in model.named_parameters()}
        self.dense = {name: wanted[name] for name in dense if name not in half}
        slots = {**where, **dict.fromkeys(half)}
        self.slots = [make_slot(name, wanted[name], at) for name, at in slots.items()]
        if several():
            share_positions(self.slots)
            hide_from_ddp(model, named, self.slots)
        self._untouched = Untouched(model, self.slots, self.dense.values())
        trained = {id(value) for value in wanted.values()}
        for value in model.parameters():
            value.requires_grad_(id(value) in trained)
            if id(value) in trained:
                value.grad = None
        self._handles: list[RemovableHandle] = [
            slot.parameter.register_post_accumulate_grad_hook(partial(self._take, slot)) for slot in self.slots
        ]
        self._averaged = self._reloaded = self._in_doubt = False
        self._embeddings = self._row_wise()
        self._places = {name: _place(model, name) for name in [*slots, *self.dense]}

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

    def settle(self) -> None:
        """Take over weights that were loaded into the module since the tuner last wrote; nothing to do where none were.

        The bits at the positions are compared with those the tuner left there. Entries that differ are taken for the
        values, in vectors that stay the same objects (an optimiser goes on with them); the others, in half precision,
        keep their masters' bits. If some differ, or torch counted someone else's write to a parameter, everything
        outside the positions is compared with the base, too, by its digest.

        Raises `UsageError` if that differs, if a parameter is no longer the module's or has another dtype or device,
        and if the vectors were trained but not written when the weights were loaded.
        """
        self._require_places()
        self._in_doubt |= self._untouched.rewritten()
        flags = [slot.overwritten() for slot in self.slots]
        if flags and bool(torch.stack([flag.to(flags[0].device) for flag in flags]).any()):  # one wait for a device
            self._reloaded = self._in_doubt = True
            for slot, flag in zip(self.slots, flags, strict=True):
                if flag:
                    slot.take_over()
        if self._in_doubt:
            self._untouched.require()
            self._in_doubt = False

    def _require_places(self) -> None:
        """Raise `UsageError` if a trained parameter is no longer the module's, or has another dtype or device."""
        for name, parameter in [*((slot.name, slot.parameter) for slot in self.slots), *self.dense.items()]:
            owner, own = self._places[name]
            if getattr(owner, own, None) is not parameter:
                raise UsageError(
                    f"{name!r} is another parameter now than when the tuner was made (loaded with assign=True, tied or "
                    "resized since?); load without assign, and make the tuner after all else"
                )
        for slot in self.slots:
            slot.require_place()

    def average(self) -> None:
        """Settle, then average the compact gradients over all processes, once a step."""
        self.settle()
        if self._averaged or not several():
            return
        average_gradients(self.slots, self._reloaded)
        self._averaged, self._reloaded = True, False

    def clip(self, max_norm: float) -> Tensor:
        """Average, then clip the norm of all trained gradients together; give the norm before, a scalar."""
        self.average()
        return torch.nn.utils.clip_grad_norm_(self.parameters(), max_norm)

    def write(self) -> None:
        """Settle, write the compact vectors into the module and drop their gradients."""
        self.settle()
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
        if hasattr(self._model, DDP_IGNORES):
            delattr(self._model, DDP_IGNORES)

    def state_dict(self) -> dict[str, Any]:
        """What it takes to go on later, or from the base alone; the dense parameters are not in it.

        `slots`: by name, in order, the positions, the values (of half precision the masters) and the base's entries at
        the positions. `untouched`: the digests of the base. Weights that were loaded count, but nothing is taken over,
        so that an averaged model may be saved and taken out again. Raises `UsageError` as `settle` does.
        """
        self._require_places()
        self._untouched.require()
        return {"slots": {slot.name: slot.state() for slot in self.slots}, "untouched": dict(self._untouched.digests)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take positions and values of a tuner of the same tensors, and write them.

        The module holds the state's base, or what was trained at the state's positions or the tuner's own. The vectors
        stay the same objects, in other lengths if need be. Raises `UsageError`, and leaves everything as it was, if the
        module holds another base, or the state is of other tensors or is none.
        """
        slots = checked(state, self.slots)
        self._untouched.require_base_of(slots, state["untouched"])
        for slot in self.slots:
            slot.load(slots[slot.name])
        self._untouched.adopt(state["untouched"])
        self._averaged = self._reloaded = self._in_doubt = False

    def matches(self, state: Mapping[str, Any]) -> bool:
        """Whether the module holds a state's values at its positions, rounded to the parameters' dtypes, or its base's.

        Raises `UsageError` as `load_state_dict` does for a state that is none or of other tensors.
        """
        slots = checked(state, self.slots)
        return any(all(slot.holds(slots[slot.name], what) for slot in self.slots) for what in ("values", "base"))

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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


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


def _place(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that a parameter belongs to, and its name there."""
    path, _, own = name.rpartition(".")
    return model.get_submodule(path), own
