"""What sees every call of torch while a batch is mixed, and stops one that takes a changed tensor unasked.

Source: `torch.overrides.TorchFunctionMode`, which sees functions and methods called from Python, and below it
`TorchDispatchMode`, which sees what scripted functions and torch's transforms call. What an extension in C++ or a fused
kernel is given past torch's dispatcher neither sees.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode

from diffpack.errors import UsageError
from diffpack.live.overlaps import span
from diffpack.live.places import Place

_METADATA = frozenset(
    [
        "dtype", "device", "shape", "layout", "ndim", "size", "stride", "dim", "ndimension", "numel", "nelement",
        "element_size", "itemsize", "nbytes", "storage_offset", "requires_grad", "is_leaf", "grad_fn", "grad", "names",
        "is_cuda", "is_cpu", "is_meta", "is_sparse", "is_quantized", "is_mkldnn", "is_floating_point", "is_complex",
        "is_signed", "is_contiguous", "is_inference", "is_conj", "is_neg", "is_nested", "is_shared", "is_same_size",
        "get_device", "__len__", "_version", "zeros_like", "ones_like", "empty_like", "rand_like", "randn_like",
        "new_zeros", "new_ones", "new_empty",
    ]
)  # fmt: skip
"""What reads a tensor's kind, not its values."""
_LIKE_ANOTHER = frozenset(["to", "type_as", "view_as", "expand_as", "reshape_as", "is_same_size"])
"""Methods that take only the kind of their second tensor."""


class Guard(TorchFunctionMode):
    """Raises `UsageError` when a place's tensor, or one that shares its memory, is an argument of a call.

    Calls inside `permit` may take them. It holds for the thread that entered it.
    """

    def __init__(self, places: Iterable[Place]) -> None:
        super().__init__()
        held = sorted((place for place in places if place.tensor.numel()), key=lambda place: place.tensor.data_ptr())
        self._places = held
        self._starts = [place.tensor.data_ptr() for place in held]
        self._ends = [span(place.tensor)[1] for place in held]
        self._permitted: frozenset[Place] | None = frozenset()
        self._refused: UsageError | None = None
        self._below = _Below(self)
        self._dispatching = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look at all calls of this thread, and of what torch itself calls, meanwhile."""
        try:
            with self, self._dispatch(True):
                yield
        except RuntimeError as error:  # the interpreter of scripts makes it one of its own, of its own words
            if self._refused is None:
                raise
            raise self._refused from error

    @contextmanager
    def _dispatch(self, on: bool) -> Iterator[None]:
        """Look below, or do not (it takes time at every operation), meanwhile."""
        before = self._dispatching
        if on == before or (before and _get_current_dispatch_mode() is not self._below):
            yield  # as it is, or another mode was entered above it
            return
        change, back = (_enter, _leave) if on else (_leave, _enter)
        change(self._below)
        self._dispatching = on
        try:
            yield
        finally:
            back(self._below)
            self._dispatching = before

    @contextmanager
    def permit(self, places: Iterable[Place] | None) -> Iterator[None]:
        """Let calls take the tensors of these places (None: of all), and of no others, meanwhile."""
        before = self._permitted
        self._permitted = None if places is None else frozenset(places)
        try:
            with self._dispatch(places is not None):
                yield
        finally:
            self._permitted = before

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Look at the arguments, then call."""
        kwargs = kwargs or {}
        if self._permitted is not None:  # the name takes time, too
            name = getattr(func, "__name__", "")
            if name == "__get__":
                name = getattr(getattr(func, "__self__", None), "__name__", "")
            self.look(name, args, kwargs)
        return func(*args, **kwargs)

    def look(self, call: str, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        """Raise `UsageError` if a call takes the values of a tensor that is not permitted."""
        if self._permitted is not None and call not in _METADATA:
            self._look(call, args[:1] if call in _LIKE_ANOTHER else args)
            self._look(call, kwargs)

    def _look(self, call: str, arguments: Any) -> None:
        if isinstance(arguments, Tensor):
            place = self._place_of(arguments)
            if place is not None and self._permitted is not None and place not in self._permitted:
                self._refused = UsageError(
                    f"{place.words.name}: the tasks of this batch change it, and {call or 'a call'} takes it directly, "
                    "not through a module whose rows are told apart: run each task by itself (switcher.task), or "
                    "declare the class whose forward does this with diffpack.live.row_by_row, if rows are the first "
                    "dimension of what it takes and gives"
                )
                raise self._refused
        elif isinstance(arguments, dict):
            self._look(call, tuple(arguments.values()))
        elif isinstance(arguments, tuple | list):
            for item in arguments:
                if isinstance(item, Tensor | tuple | list | dict):
                    self._look(call, item)

    def _place_of(self, tensor: Tensor) -> Place | None:
        try:
            start = tensor.data_ptr()
        except RuntimeError:  # one without memory of its own: sparse, fake
            return None
        if not start:
            return None
        at = bisect.bisect_right(self._starts, start) - 1
        if at >= 0 and start < self._ends[at]:
            return self._places[at]
        after = at + 1  # a larger one, of which a place is a part
        if after < len(self._starts) and tensor.is_contiguous() and self._starts[after] < start + tensor.nbytes:
            return self._places[after]
        return None


class _Below(TorchDispatchMode):
    """Looks at what reaches torch's dispatcher by other ways than a call from Python."""

    def __init__(self, guard: Guard) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has it untyped
        self._guard = guard

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Look at the arguments, then call."""
        kwargs = kwargs or {}
        self._guard.look(func.__name__.partition(".")[0], args, kwargs)
        return func(*args, **kwargs)


def _enter(mode: TorchDispatchMode) -> None:
    mode.__enter__()


def _leave(mode: TorchDispatchMode) -> None:
    mode.__exit__(None, None, None)
