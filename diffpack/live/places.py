"""The places of a module: each tensor of its state, where it lies, and whether anybody else wrote there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from diffpack.errors import UnsupportedCheckpointError, UsageError
from diffpack.live.overlaps import memory_of, overlapping
from diffpack.live.shared_memory import is_shared
from diffpack.live.words import TensorWords
from diffpack.support.names import printable

_AGAIN = "make a new TaskSwitcher once the module is as it is to stay"


class Place:
    """A parameter or buffer of a module, whatever number of names lead to it.

    `names` are those of the module's state, the first is that of errors. `words` is its memory.
    """

    def __init__(self, name: str, owner: nn.Module, attribute: str, tensor: Tensor, model: str) -> None:
        self.names = [name]
        self.tensor = tensor
        self.words = TensorWords(tensor, f"the {model}: {printable(name)}")
        self._owner, self._attribute = owner, attribute
        self._memory = tensor.data_ptr()
        self._seen = _version(tensor)

    @property
    def name(self) -> str:
        """The first of its names."""
        return self.names[0]

    def check(self) -> None:
        """Raise `UsageError` if the module holds another tensor there by now, or somebody else wrote into it."""
        if getattr(self._owner, self._attribute, None) is not self.tensor or self.tensor.data_ptr() != self._memory:
            raise UsageError(
                f"{self.words.name} was replaced or moved since the switcher was made (to another device or dtype, "
                f"load_state_dict(assign=True)): {_AGAIN}"
            )
        if _version(self.tensor) != self._seen:
            raise UsageError(
                f"{self.words.name} was written by others since the switcher last did (an optimiser, load_state_dict): "
                f"what was there before is not known any more; {_AGAIN}"
            )

    def write(self, index: Tensor | None, words: Tensor) -> None:
        """Write words (integers) at positions, or all of them (`TensorWords.scatter`)."""
        self.words.scatter(index, words)
        self._seen = _version(self.tensor)

    def __repr__(self) -> str:
        return f"Place({self.name!r}, {self.words.info}, {self.words.device})"


def _version(tensor: Tensor) -> int:
    """How often torch saw a tensor be written; 0 for those it does not count for."""
    return 0 if tensor.is_inference() else tensor._version


def find_places(model: nn.Module) -> dict[str, Place]:
    """The places of a module by the names its `state_dict()` has for them; of tied tensors one, by each name.

    State that is no parameter or buffer has none. Raises `UnsupportedCheckpointError` for a tensor without plain values
    here (`TensorWords`), and for two that share a part of their memory; `UsageError` for memory that models share.
    """
    kind = type(model).__name__
    state = model.state_dict(keep_vars=True)
    found: dict[str, Place] = {}
    by_memory: dict[tuple[object, ...], Place] = {}
    for name, owner, attribute, tensor in _registered(model):
        if state.get(name) is not tensor:
            continue
        where = memory_of(tensor)
        place = by_memory.get(where) if tensor.numel() else None
        if place is None:
            place = by_memory[where] = Place(name, owner, attribute, tensor, kind)
        else:
            place.names.append(name)
        found[name] = place
    _refuse_unwritable(found)
    return found


def _registered(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, Tensor]]:
    """Parameters and buffers, each under all its names: (name, module that owns it, its name there, tensor)."""
    for prefix, owner in model.named_modules(remove_duplicate=False):
        own: list[Mapping[str, Tensor | None]] = [owner._parameters, owner._buffers]
        for tensors in own:
            for attribute, tensor in tensors.items():
                if tensor is not None:
                    yield f"{prefix}.{attribute}" if prefix else attribute, owner, attribute, tensor


def _refuse_unwritable(places: Mapping[str, Place]) -> None:
    """Raise for a place whose memory is a part of another's, or that other models share."""
    own = {place.name: place for place in places.values()}
    common = overlapping({name: place.tensor for name, place in own.items()})
    for name, other in common.items():
        raise UnsupportedCheckpointError(
            f"{own[name].words.name} and {printable(other)} share a part of their memory: "
            "a task could not write one without the other"
        )
    for place in own.values():
        if is_shared(place.tensor):
            raise UsageError(
                f"{place.words.name} lies in memory that other models share: load the model with "
                "from_pretrained(..., share=False)"
            )
