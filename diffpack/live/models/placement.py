"""Whether a model of transformers holds just the tensors it was given, bit for bit: nothing cast, dropped or drawn."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

from diffpack.errors import UsageError
from diffpack.support.names import listed, printable

_NOW_COMPUTED = (r"rotary_emb\.inv_freq$", r"(^|\.)position_ids$")
"""Buffers that older checkpoints store and transformers' modules compute by themselves."""
_ADVICE = "name another class (model_class=), or build the model yourself and take the tensors from diffpack.load"


def settle(model: Any, given: Mapping[str, torch.Tensor], again: Callable[[], Any], where: str) -> None:
    """Make sure of where the tensors given to a model went, and put back those that were cast on the way.

    Each is the memory of a parameter or buffer, or equal in all bits to the one it is tied to, or of a kind that
    transformers ignores. Where its classes turn and stack tensors when they load them (experts), these are other
    tensors of as many entries. `again` builds the model once more, to see that what was given by nobody is the same
    each time. Raises `UsageError`, naming tensors that have no place, and those that nothing was given for.
    """
    own: dict[str, torch.Tensor] = model.state_dict(keep_vars=True)
    names = {_place(tensor): name for name, tensor in given.items() if tensor.numel()}
    placed = {name: names[_place(tensor)] for name, tensor in own.items() if _place(tensor) in names}
    rest = {name: tensor for name, tensor in given.items() if name not in set(placed.values()) and tensor.numel()}
    homeless: dict[str, torch.Tensor] = {}
    filled = set(placed)
    for name, tensor in rest.items():
        target = _called(model, name, own)
        if target is None:
            homeless[name] = tensor
        elif same_bits(own[target], tensor):
            filled.add(target)
        elif target not in placed and same_bits(own[target], tensor.to(own[target].dtype)):  # it was cast
            put(model, target, tensor)
            filled.add(target)
        else:
            homeless[name] = tensor
    own = model.state_dict(keep_vars=True)
    ours = {_place(own[name]) for name in filled}
    lacking = {name: own[name] for name in own if own[name].numel() and _place(own[name]) not in ours}
    ignored = _Patterns([*(model._keys_to_ignore_on_load_unexpected or ()), *_NOW_COMPUTED])
    homeless = {name: tensor for name, tensor in homeless.items() if not ignored.match(name)}
    _check_rest(model, homeless, lacking, again, where)


def put(model: nn.Module, name: str, tensor: torch.Tensor) -> None:
    """Make a tensor the parameter or buffer of a name, for all modules that have that parameter."""
    parent, _, last = name.rpartition(".")
    old = getattr(model.get_submodule(parent), last)
    new = nn.Parameter(tensor, requires_grad=False) if isinstance(old, nn.Parameter) else tensor
    for module in model.modules():
        for key, value in [*module._parameters.items(), *module._buffers.items()]:
            if value is old:
                setattr(module, key, new)


def same_bits(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Whether two tensors are of one dtype and shape, and equal in all bits."""
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    return bool(torch.equal(_octets(first), _octets(second)))


def _octets(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def _place(tensor: torch.Tensor) -> tuple[object, ...]:
    return tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.is_contiguous()


def _called(model: Any, name: str, own: Mapping[str, torch.Tensor]) -> str | None:
    """What the model calls a tensor of its files: with the prefix of its body, or without."""
    prefix = f"{model.base_model_prefix}."
    return next((found for found in (name, prefix + name, name.removeprefix(prefix)) if found in own), None)


def _check_rest(
    model: Any,
    homeless: Mapping[str, torch.Tensor],
    lacking: Mapping[str, torch.Tensor],
    again: Callable[[], Any],
    where: str,
) -> None:
    kind = type(model).__name__
    if homeless and lacking and _rearranged(homeless.values(), lacking.values()):
        return
    if homeless:
        raise UsageError(f"{where}: {kind} has no place for {_named(homeless)}: {_ADVICE}")
    computed = _Patterns(model._keys_to_ignore_on_load_missing or ())
    drawn = {name: tensor for name, tensor in lacking.items() if not computed.match(name)}
    if lacking and not drawn:  # what a class computes is the same each time, what it draws is not
        other = again().state_dict()
        drawn = {name: tensor for name, tensor in lacking.items() if not same_bits(other[name], tensor)}
    if drawn:
        raise UsageError(f"{where}: the result lacks {_named(drawn)}, which {kind} needs: {_ADVICE}")


def _rearranged(given: Iterable[torch.Tensor], made: Iterable[torch.Tensor]) -> bool:
    """Whether tensors may be others in another order: of the same dtypes, and of as many entries of each."""
    return _entries(given) == _entries(made)


def _entries(tensors: Iterable[torch.Tensor]) -> dict[torch.dtype, int]:
    found: dict[torch.dtype, int] = {}
    for tensor in tensors:
        found[tensor.dtype] = found.get(tensor.dtype, 0) + tensor.numel()
    return found


def _named(tensors: Mapping[str, torch.Tensor]) -> str:
    return listed([printable(name) for name in sorted(tensors)])


class _Patterns:
    """Regular expressions of which any may match somewhere in a name."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._found = [re.compile(pattern) for pattern in patterns]

    def match(self, name: str) -> bool:
        return any(pattern.search(name) for pattern in self._found)
