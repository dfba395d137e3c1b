"""Modules that treat the first dimension as independent rows: run once a task, on its rows, with its tensors."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from diffpack.errors import UsageError
from diffpack.live.mixed.handler import Handler
from diffpack.live.mixed.replaced import replaced
from diffpack.live.mixed.rows import Group

_PLAIN = (bool, int, float, complex, str, bytes, torch.dtype, torch.device, type(None))
_declared: list[type[nn.Module]] = []


def row_by_row(cls: type[nn.Module]) -> type[nn.Module]:
    """Declare that a class of modules treats the first dimension as rows; give the class (a decorator).

    In a mixed batch such a module runs once for each task, on its rows, with all tensors below it as the task has them.
    Of what its `forward` is given, each tensor whose first dimension is as long as the batch is cut into rows; those of
    no dimension, or whose first is 1, go to every task; the tensors it gives must have its rows first. It must keep
    nothing from call to call (caches). Subclasses with a `forward` of their own are not meant. That is trusted, not
    checked. Raises `UsageError` for what is no class of modules.
    """
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise UsageError(f"row_by_row takes a class of torch.nn.Module, not {cls!r}")
    if cls not in _declared:
        _declared.append(cls)
    return cls


def forward_of(cls: type[nn.Module]) -> object:
    """The forward of a class as it stands there (a scripted module's cannot be asked for by its class)."""
    return inspect.getattr_static(cls, "forward", None)


def is_declared(module: nn.Module) -> bool:
    """Whether a module's forward is that of a declared class."""
    return any(isinstance(module, cls) and forward_of(type(module)) is forward_of(cls) for cls in _declared)


class RowByRow(Handler):
    """Runs a module once a group; `changes` are by paths below it."""

    least_dimensions = 1

    def __call__(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What comes out, all rows in their order."""
        first = next((item for item in (*args, *kwargs.values()) if isinstance(item, Tensor)), None)
        if first is None:
            self.refuse("it was given no tensor")
        self.check_rows(first, self.least_dimensions)
        parts = [self._run(original, group, args, kwargs) for group in self.rows.groups]
        return self._joined(parts)

    def _run(self, original: Callable[..., Any], group: Group, args: Any, kwargs: Any) -> Any:
        tensors = []
        for path, changed in self.changes.items():
            owner, _, attribute = path.rpartition(".")
            tensors.append((self.module.get_submodule(owner), attribute, changed.whole(group)))
        own = [changed.place for changed in self.changes.values()]
        cut = self._cut(list(args), group), self._cut(kwargs, group)
        with replaced(tensors), self.batch.as_one_task(), self.batch.guard.permit(own):
            return original(*cut[0], **cut[1])

    def _cut(self, given: Any, group: Group) -> Any:
        if isinstance(given, Tensor):
            if given.dim() and given.shape[0] == self.rows.count:
                return self.rows.take(given, group)
            if given.dim() and given.shape[0] != 1:
                self.check_rows(given, 1)
            return given
        if type(given) in (tuple, list):
            return type(given)(self._cut(item, group) for item in given)
        if type(given) is dict:
            return {key: self._cut(item, group) for key, item in given.items()}
        if isinstance(given, _PLAIN):
            return given
        return self.refuse(f"it was given a {type(given).__name__}, which cannot be cut into rows")

    def _joined(self, parts: list[Any]) -> Any:
        first = parts[0]
        if isinstance(first, Tensor):
            for part, group in zip(parts, self.rows.groups, strict=True):
                if not part.dim() or part.shape[0] != len(group.rows) or part.shape[1:] != first.shape[1:]:
                    self.refuse(f"it gave a tensor of shape {tuple(part.shape)} for {len(group.rows)} rows")
            whole = first.new_empty((self.rows.count, *first.shape[1:]))
            for part, group in zip(parts, self.rows.groups, strict=True):
                there = self.rows.take(whole, group)
                there.copy_(part)
                self.rows.put(whole, group, there)
            return whole
        if type(first) in (tuple, list):
            return type(first)(self._joined(list(items)) for items in zip(*parts, strict=True))
        if isinstance(first, _PLAIN) and all(part == first for part in parts):
            return first
        return self.refuse(f"it gave a {type(first).__name__}, which cannot be put together from rows")


class OfRank(RowByRow):
    """Row by row, for modules that also take one row without its first dimension: that is refused."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.least_dimensions = 2 + _spatial(self.module)


def _spatial(module: nn.Module) -> int:
    """Over how many dimensions a convolution goes."""
    sizes = getattr(module, "kernel_size", ())
    return len(sizes) if isinstance(sizes, tuple) else 0
