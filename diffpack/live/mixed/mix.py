"""A model whose rows are tasks, for a while: handlers stand in for forwards, a guard looks at all other calls."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from diffpack.errors import UsageError
from diffpack.live.mixed.changed import Changed, Prepared
from diffpack.live.mixed.guard import Guard
from diffpack.live.mixed.handler import Batch, Handler
from diffpack.live.mixed.plan import plan
from diffpack.live.mixed.rows import Rows
from diffpack.live.patch import Patch


@contextmanager
def mix(model: nn.Module, tasks: Sequence[tuple[int, Patch]], store: Prepared) -> Iterator[None]:
    """Let each row of what a model is given be of a task: (its version's count, its patch), one a row.

    The base must stand in the model, and nobody else use it. What was prepared of a task is kept in `store`. Afterwards
    every forward is what it was. Raises `UsageError` as `plan` does, and from within the model's forward.
    """
    rows = Rows(tasks)
    places = list(dict.fromkeys(place for group in rows.groups for place in group.entries))
    for place in places:
        place.check()
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        guard = Guard(places)
        batch = Batch(rows, guard)
        changed = {place: Changed(place, rows, store) for place in places}
        for stand in plan(model, places):
            changes = {name: changed[place] for name, place in stand.places.items()}
            handler = stand.handler(stand.module, stand.name, changes, batch)
            stack.enter_context(_standing_in(stand.target, stand.method, handler, batch))
        hook = model.register_forward_pre_hook(_check_input(type(model).__name__, batch), with_kwargs=True)
        stack.callback(hook.remove)
        stack.enter_context(guard.watching())
        yield


@contextmanager
def _standing_in(target: nn.Module, method: str, handler: Handler, batch: Batch) -> Iterator[None]:
    """Let a handler answer for a method of a module."""
    original: Callable[..., Any] = getattr(target, method)

    @functools.wraps(original)
    def stand_in(*args: Any, **kwargs: Any) -> Any:
        if batch.by_row:
            return original(*args, **kwargs)
        batch.check(handler.name)
        with batch.guard.permit(None):
            return handler(original, *args, **kwargs)

    own = vars(target)
    before = own.get(method)
    setattr(target, method, stand_in)
    try:
        yield
    finally:
        if before is None:
            delattr(target, method)
        else:
            setattr(target, method, before)


def _check_input(kind: str, batch: Batch) -> Callable[..., None]:
    """What raises `UsageError` before a forward of the whole model that is given another number of rows."""

    def check(module: nn.Module, args: Any, kwargs: Any) -> None:
        del module
        batch.check(kind)
        shapes = [tuple(tensor.shape) for tensor in _tensors([*args, *kwargs.values()])]
        if shapes and not any(shape[:1] == (batch.rows.count,) for shape in shapes):
            raise UsageError(
                f"{kind}: the batch is mixed of {batch.rows.count} rows, but none of its tensors has as many: "
                f"{', '.join(map(str, shapes))}: give one name for each row (beams and expanded rows cannot be mixed)"
            )

    return check


def _tensors(given: Any) -> Iterator[Tensor]:
    if isinstance(given, Tensor):
        yield given
    elif isinstance(given, dict):
        yield from _tensors(list(given.values()))
    elif isinstance(given, tuple | list):
        for item in given:
            yield from _tensors(item)
