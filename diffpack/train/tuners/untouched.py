"""What a tuner must find as it was: the entries of a module outside the positions, known by a digest a tensor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from blake3 import blake3
from torch import Tensor, nn

from diffpack.errors import UsageError
from diffpack.support.names import listed
from diffpack.train.tuners.slot import Slot

CHUNK = 1 << 20
"""Entries hashed at a time: what a copy off the device, with the base put back, may take."""


class Untouched:
    """The parameters of a module of which a tuner leaves entries alone, and digests of what they held.

    Each tensor is hashed with the base's values at the trained positions, so the digest stays the same while they are
    trained and while they move. Not among them: tensors trained whole, and those whose bytes cannot be had (quantised
    and other subclasses of Parameter, sparse ones, those on the meta device).
    """

    def __init__(self, model: nn.Module, slots: Sequence[Slot], dense: Iterable[nn.Parameter]) -> None:
        whole = {id(value) for value in dense} | {id(slot.parameter) for slot in slots if slot.positions is None}
        self._slots = {id(slot.parameter): slot for slot in slots}
        self._parameters = {
            name: value for name, value in model.named_parameters() if id(value) not in whole and _readable(value)
        }
        self.digests = {name: self._digest(value) for name, value in self._parameters.items()}
        self._seen = self._versions()

    def rewritten(self) -> bool:
        """Whether torch counted a write to one of them that was not the tuner's (it counts none through `.data`)."""
        return self._seen != self._versions()

    def require(self) -> None:
        """Hash them all. Raises `UsageError` if one is not as it was."""
        other = [name for name, value in self._parameters.items() if self._digest(value) != self.digests[name]]
        if other:
            raise UsageError(
                f"the module's weights were changed outside the tuner's positions since it was made: {listed(other)}. "
                "What was loaded is another base, or was trained at other positions: load the base before you make the "
                "tuner, and make it with the positions that those weights were trained at"
            )
        self._seen = self._versions()

    def require_base_of(self, state: Mapping[str, Mapping[str, Tensor]], digests: Mapping[str, str]) -> None:
        """Raise `UsageError` unless the module, outside the positions of a state's slots, is what `digests` says."""
        if list(digests) != list(self.digests):
            raise UsageError("the tuner's state is of a module with other parameters, or with others trained whole")
        other = [name for name, value in self._parameters.items() if self._digest(value, state) != digests[name]]
        if other:
            raise UsageError(
                f"the tuner's state belongs to another base: outside its positions these differ: {listed(other)}. "
                "Load the base that it was trained from first"
            )

    def adopt(self, digests: Mapping[str, str]) -> None:
        """Expect what a state says from now on."""
        self.digests = dict(digests)
        self._seen = self._versions()

    def _versions(self) -> list[int]:
        """How often torch saw each be written; of a tuned one, after its slot's last write."""
        return [
            value._version - (self._slots[id(value)].version if id(value) in self._slots else 0)
            for value in self._parameters.values()
        ]

    def _digest(self, value: nn.Parameter, loaded: Mapping[str, Mapping[str, Tensor]] | None = None) -> str:
        """The digest of a parameter with the base at its slot's positions, and at those of a loaded state's slot."""
        slot = self._slots.get(id(value))
        if slot is None or slot.positions is None:
            return digest(value)
        put_back = [(slot.positions, slot.base)]
        if loaded is not None:
            state = loaded[slot.name]
            put_back.append((state["positions"].to(value.device), state["base"].to(value.device)))
        return digest(value, put_back)


def _readable(value: nn.Parameter) -> bool:
    return type(value) is nn.Parameter and value.layout == torch.strided and value.device.type != "meta"


def digest(value: Tensor, put_back: Sequence[tuple[Tensor, Tensor]] = ()) -> str:
    """BLAKE3 of a tensor's bytes in C order, with other values put at sorted flat positions, one set after another."""
    flat = value.detach().reshape(-1)
    hasher = blake3()
    for start in range(0, flat.numel(), CHUNK):
        part = flat[start : start + CHUNK]
        for positions, values in put_back:
            edges = torch.tensor([start, start + part.numel()], device=positions.device)
            first, last = torch.searchsorted(positions, edges).tolist()
            if last > first:
                part = part.clone()
                part[positions[first:last] - start] = values[first:last]
        hasher.update(part.view(torch.uint8).cpu().numpy().data)
    return hasher.hexdigest()
