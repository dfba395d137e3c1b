"""What a handler is: the stand-in for a module's `forward` while the rows of a batch belong to several tasks."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor, nn
from torch.jit._trace import is_tracing

from diffpack.errors import UsageError
from diffpack.live.mixed.changed import Changed
from diffpack.live.mixed.guard import Guard
from diffpack.live.mixed.rows import Rows

INSTEAD = (
    "run each task by itself (switcher.task), or declare its class with diffpack.live.row_by_row, if the first "
    "dimension of what it takes and gives are rows"
)
"""What is to be done about a module that cannot be mixed."""
_AUTOCAST_DEVICES = ("cpu", "cuda")


class Batch:
    """A batch that is being mixed: its rows, the guard, the thread it belongs to.

    `by_row` while a module runs with the tensors of one task in it: handlers within it step aside.
    """

    def __init__(self, rows: Rows, guard: Guard) -> None:
        self.rows = rows
        self.guard = guard
        self.by_row = False
        self._thread = threading.get_ident()

    def check(self, name: str) -> None:
        """Raise `UsageError` where a module is called as handlers cannot answer for."""
        if torch.compiler.is_compiling() or is_tracing():
            raise UsageError(f"{name}: a mixed batch cannot be compiled or traced: call the module itself")
        if any(torch.is_autocast_enabled(device) for device in _AUTOCAST_DEVICES):
            raise UsageError(f"{name}: a mixed batch is not computed under autocast: cast the model instead")
        if threading.get_ident() != self._thread:
            raise UsageError(f"{name}: called by another thread than the one that mixes the batch")
        if torch.is_grad_enabled():
            raise UsageError(f"{name}: a mixed batch has no gradients: leave them off, or train one task at a time")

    @contextmanager
    def as_one_task(self) -> Iterator[None]:
        """Let handlers step aside meanwhile."""
        before, self.by_row = self.by_row, True
        try:
            yield
        finally:
            self.by_row = before


class Handler(ABC):
    """Computes what a module gives for the rows of a batch. `original` is the module's own forward.

    `changes` has what becomes of the tensors it owns, by their names below the module. `name` is its name in the model.
    `knows` are the tensors a handler can answer for, None for all. Raises `UsageError`, as it is made, for a module it
    cannot answer for, and when called with something whose first dimension are not the rows.
    """

    knows: ClassVar[frozenset[str] | None] = None

    def __init__(self, module: nn.Module, name: str, changes: Mapping[str, Changed], batch: Batch) -> None:
        self.module, self.name = module, name
        self.changes, self.batch, self.rows = changes, batch, batch.rows
        unknown = sorted(changes.keys() - self.knows) if self.knows is not None else []
        if unknown:
            self.refuse(f"nothing is known about its {unknown[0]!r}")

    @abstractmethod
    def __call__(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What the module gives for all rows."""

    def refuse(self, why: str) -> NoReturn:
        """Raise `UsageError`."""
        raise UsageError(f"{self.name or 'the model'} ({type(self.module).__name__}): {why}: {INSTEAD}")

    def check_rows(self, x: Tensor, least: int) -> None:
        """Raise `UsageError` unless the first of at least so many dimensions are the rows."""
        if x.dim() < least or x.shape[0] != self.rows.count:
            self.refuse(
                f"it was given a tensor of shape {tuple(x.shape)}, whose first dimension are not the "
                f"{self.rows.count} rows of the batch"
            )
