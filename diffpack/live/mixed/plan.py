"""What is to be replaced in a model for a batch: for each module that owns a changed tensor its handler."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from torch import nn

from diffpack.errors import UsageError
from diffpack.live.mixed.handler import INSTEAD, Handler
from diffpack.live.mixed.handlers import handler_in, handler_of
from diffpack.live.mixed.handlers.row_by_row import RowByRow
from diffpack.live.overlaps import memory_of
from diffpack.live.places import Place

_EXPERTS = "experts"


@dataclass(eq=False)
class Stand:
    """A handler for a module, standing in for `method` of `target`.

    `places` are the changed tensors by their names below the module. `name` is the module's name in the model.
    """

    handler: type[Handler]
    module: nn.Module
    name: str
    target: nn.Module
    method: str
    places: dict[str, Place] = field(default_factory=dict)


def plan(model: nn.Module, places: Iterable[Place]) -> list[Stand]:
    """The handlers for a model in which these places change.

    Raises `UsageError` and names the module: where no module that owns a place is known, where rows are not the first
    dimension, mix, or come in parts, and where code that was compiled or other wrappers would not see the handlers.
    """
    paths = dict(model.named_modules(remove_duplicate=False))
    _refuse_wrappers(paths)
    stands: dict[tuple[int, str], Stand] = {}
    answered: set[Place] = set()
    unknown: dict[Place, str] = {}
    for path, attribute, place in _owned(paths, places):
        stand = _stand(path, paths)
        if stand is None:
            unknown.setdefault(place, path)
            continue
        _refuse_order(stand.name, paths)
        stand = stands.setdefault((id(stand.target), stand.method), stand)
        below = path.removeprefix(stand.name).removeprefix(".") if stand.handler is RowByRow else ""
        stand.places[f"{below}.{attribute}" if below else attribute] = place
        answered.add(place)
    for place, path in unknown.items():
        if place not in answered:
            _refuse(path, paths, f"nothing is known about what it does with {place.words.name}")
    for stand in stands.values():
        _refuse_replaced(stand, paths)
    return list(stands.values())


def _owned(paths: Mapping[str, nn.Module], places: Iterable[Place]) -> Iterator[tuple[str, str, Place]]:
    """Each module's own tensors of these places: (its path, the tensor's name there, place)."""
    by_memory = {memory_of(place.tensor): place for place in places}
    for path, module in paths.items():
        for attribute, tensor in (*module._parameters.items(), *module._buffers.items()):
            place = by_memory.get(memory_of(tensor)) if tensor is not None else None
            if place is not None:
                yield path, attribute, place


def _stand(path: str, paths: Mapping[str, nn.Module]) -> Stand | None:
    """The handler for what the module at a path owns: the outermost that runs row by row, else its own."""
    for above in _above(path):
        if handler_of(paths[above]) is RowByRow:
            return Stand(RowByRow, paths[above], above, paths[above], "forward")
    module = paths[path]
    parent, _, child = path.rpartition(".")
    in_parent = handler_in(paths[parent], child) if path else None
    if in_parent is not None:
        method, handler = in_parent
        target = paths[parent] if method else module
        return Stand(handler, module, path, target, method or "forward")
    handler_or_none = handler_of(module)
    return None if handler_or_none is None else Stand(handler_or_none, module, path, module, "forward")


def _above(path: str) -> Iterator[str]:
    """The paths of a module and those it is in, the model's own first."""
    yield ""
    parts = path.split(".") if path else []
    for count in range(1, len(parts) + 1):
        yield ".".join(parts[:count])


def _refuse_wrappers(paths: Mapping[str, nn.Module]) -> None:
    for path, module in paths.items():
        if type(module).__name__ == "OptimizedModule" or getattr(module, "_compiled_call_impl", None) is not None:
            raise UsageError(
                f"{path or 'the model'} is compiled (torch.compile), and compiled code would not see the rows' tasks: "
                "give the switcher a model whose modules are not, or run each task by itself (switcher.task)"
            )
        if isinstance(module, nn.DataParallel):
            raise UsageError(
                f"{path or 'the model'} is a DataParallel, whose threads each get a part of the rows: "
                "give the switcher the module in it (.module)"
            )
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and (module.training or module.running_mean is None):
            _refuse(path, paths, "it mixes the rows of a batch (training mode: call eval() first)")


def _refuse_order(path: str, paths: Mapping[str, nn.Module]) -> None:
    """Raise `UsageError` where a module is not given whole rows, rows first."""
    for above in _above(path):
        if getattr(paths[above], "batch_first", None) is False:
            _refuse(above, paths, "its first dimension are not the rows of the batch (batch_first=False)")
    if _EXPERTS in path.split("."):
        _refuse(path, paths, "it is one of several experts, which get parts of the batch")


def _refuse_replaced(stand: Stand, paths: Mapping[str, nn.Module]) -> None:
    own = vars(stand.target).get(stand.method)
    if own is not None and getattr(own, "__func__", None) is not getattr(type(stand.target), stand.method):
        _refuse(stand.name, paths, f"others replaced its {stand.method} (hooks of accelerate, another library)")


def _refuse(path: str, paths: Mapping[str, nn.Module], why: str) -> NoReturn:
    raise UsageError(f"{path or 'the model'} ({type(paths[path]).__name__}): {why}: {INSTEAD}")
