"""Which tensors of what `torch.save` wrote are the checkpoint's, and what they are called.

Weights lie in one dict, in several (a second module, an average of the weights), or nested. All tensors are taken but
the state of training; people delete originals. NumPy arrays are tensors where they lie among tensors, or where there
are no others; beside the dict of the weights they are state (losses, generators). Where one known wrapper
(`state_dict`, `model`, ...) holds all tensors, names begin inside it, and so on inward; then a name is the path to its
tensor, joined by dots.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from diffpack.checkpoints.pickled_array import PickledArray
from diffpack.checkpoints.stored_tensor import StoredTensor
from diffpack.errors import CheckpointError, UnsupportedCheckpointError
from diffpack.support.names import listed, printable

_WRAPPERS = frozenset(
    {"state_dict", "model_state_dict", "model_state", "model", "module", "net", "network", "weights", "params"}
)
_TRAINING = frozenset({
    "optimizer", "optimizers", "optimizer_state", "optimizer_states", "optimizer_state_dict", "optimizer_state_dicts",
    "optim", "optim_state", "optim_state_dict", "last_optimizer_state", "opt_state",
    "scheduler", "schedulers", "scheduler_state", "scheduler_state_dict",
    "lr_scheduler", "lr_schedulers", "lr_scheduler_state", "lr_scheduler_state_dict",
    "callbacks", "amp", "amp_state", "amp_state_dict", "amp_scaler", "scaler", "scaler_state", "scaler_state_dict",
    "grad_scaler", "grad_scaler_state_dict", "loss_scaler", "native_amp_scaling_state",
})  # fmt: skip
"""Dicts and lists under these keys are the state of optimisers, their schedules, loss scaling and callbacks: left out.

A tensor of such a name is taken: a parameter may be called so.
"""
_RANDOM = frozenset({
    "rng", "rng_state", "rng_states", "random_state", "random_states", "random_rng_state", "torch_rng_state",
    "torch_rng_states", "torch_random_state", "cpu_rng_state", "cuda_rng_state", "cuda_rng_states",
    "cuda_rng_state_all", "numpy_rng_state", "np_rng_state", "python_rng_state", "xpu_rng_state", "rng_tracker_states",
})  # fmt: skip
"""What is under these keys, tensors too, is the state of random generators: left out."""
_MOST_REPEATED = 1 << 22
"""Items that are met a second time: a small pickle may hold one dict along endlessly many paths."""
_MOST_DEPTH = 100
_MOST_LETTERS = 1 << 25
"""Letters of all paths together: a few bytes of a pickle can hang a long key on everything."""

_Path = tuple[Any, ...]
_Tensor = StoredTensor | PickledArray


@dataclass
class Named:
    """The tensors of a file by their names, remarks for people, and what was left out, by its path."""

    tensors: dict[str, StoredTensor | PickledArray]
    notes: list[str]
    left_out: list[str]


def named_tensors(loaded: Any, source: str) -> Named:
    """Name all tensors of what a file holds but those of training's state.

    Raises `CheckpointError` for what is no dict, or holds no tensors and is not empty, or leads to one name twice, and
    `UnsupportedCheckpointError` for a tensor under a key that is neither text nor a whole number.
    """
    walk, root = _walk(loaded, source)
    if not walk.tensors and loaded != {}:
        keys = f" with {listed([printable(str(key)) for key in loaded])}" if isinstance(loaded, dict) else ""
        raise CheckpointError(f"{source}: no dict of tensors found: it holds a {type(loaded).__name__}{keys}")
    tensors: dict[str, _Tensor] = {}
    for path, tensor in walk.tensors:
        name = ".".join(map(str, path[len(root) :]))
        if name in tensors:
            raise CheckpointError(f"{source}: two tensors would be called {name!r}: rename one of its dicts")
        tensors[name] = tensor
    return Named(tensors, list(_notes(root, walk.tensors)), [_text(path) for path in walk.left_out])


def _walk(loaded: Any, source: str) -> tuple[_Walk, _Path]:
    """Find all tensors, then NumPy's arrays among them, and the wrappers around them."""
    walk = _Walk(source)
    if not isinstance(loaded, dict):
        return walk, ()
    walk.enter(loaded, ())
    root = _root(loaded, walk.tensors)
    if walk.arrays:
        found = bool(walk.tensors)
        walk = _Walk(source, arrays_under=root)
        walk.enter(loaded, ())
        root = root if found else _root(loaded, walk.tensors)
    return walk, root


@dataclass
class _Walk:
    """A walk over nested dicts and lists: tensors with their paths, and the paths of what holds none.

    NumPy's arrays count as tensors below the path `arrays_under`, nowhere if that is None; `arrays` says whether there
    are any.
    """

    source: str
    arrays_under: _Path | None = None
    arrays: bool = False
    tensors: list[tuple[_Path, _Tensor]] = field(default_factory=list)
    left_out: list[_Path] = field(default_factory=list)
    _around: set[int] = field(default_factory=set)  # a pickle may contain itself
    _entered: dict[int, bool] = field(default_factory=dict)  # whether tensors were found there
    _repeated: int = 0
    _letters: int = 0

    def enter(self, value: Any, path: _Path) -> bool:
        """Walk a dict or list; tell whether tensors were found in it. If not, it is left out as a whole."""
        if id(value) in self._entered:
            self._repeated += len(value)
        if self._repeated > _MOST_REPEATED or len(path) > _MOST_DEPTH:
            raise self._endless()
        before = len(self.left_out)
        found = False
        self._around.add(id(value))
        above = sum(len(str(key)) + 1 for key in path)
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            self._letters += above + len(str(key))
            if self._letters > _MOST_LETTERS:
                raise self._endless()
            found = self._look(item, (*path, key)) or found
        self._around.discard(id(value))
        self._entered[id(value)] = found
        if not found and path:
            self.left_out[before:] = [path]
        return found

    def _endless(self) -> CheckpointError:
        return CheckpointError(
            f"{self.source}: its dicts hold one another in more ways than weights need, or have far longer names"
        )

    def _look(self, item: Any, path: _Path) -> bool:
        key, nested = path[-1], isinstance(item, dict | list | tuple)
        left = isinstance(key, str) and (key in _RANDOM or (nested and key in _TRAINING))
        tensor = isinstance(item, StoredTensor) or self._is_weights(item, path)
        bare = not (nested or tensor) or not self._entered.get(id(item), True)
        if left or bare or id(item) in self._around:
            self.left_out.append(path)
            return False
        tensors = len(self.tensors)
        if tensor:
            self.tensors.append((path, item))
        elif not self.enter(item, path):
            return False
        if type(key) not in (str, int):
            where = _text(self.tensors[tensors][0])
            raise UnsupportedCheckpointError(
                f"{self.source}: the tensor {where}: {printable(repr(key))} is neither text nor a whole number"
            )
        return True

    def _is_weights(self, item: Any, path: _Path) -> bool:
        """Tell whether an item is an array of numbers among the weights."""
        if not isinstance(item, PickledArray) or not item.is_numbers:
            return False
        self.arrays = True
        under = self.arrays_under
        return under is not None and path[: len(under)] == under


def _root(loaded: Any, tensors: list[tuple[_Path, _Tensor]]) -> _Path:
    """The wrappers that hold all tensors, outermost first."""
    root: _Path = ()
    inside = loaded
    while tensors:
        first = tensors[0][0]
        key = first[len(root)]
        if not isinstance(key, str) or key not in _WRAPPERS or not isinstance(inside[key], dict):
            break
        if any(path[len(root)] != key for path, _ in tensors):
            break
        root, inside = (*root, key), inside[key]
    return root


def _notes(root: _Path, tensors: list[tuple[_Path, _Tensor]]) -> Iterator[str]:
    arrays = [_text(path) for path, tensor in tensors if isinstance(tensor, PickledArray)]
    if arrays:
        yield f"NumPy arrays, taken as tensors: {listed(arrays)}"
    if root:
        yield f"tensors found under {' > '.join(printable(repr(key)) for key in root)}"
    nested = dict.fromkeys(_text(path[len(root) : -1]) for path, _ in tensors if len(path) > len(root) + 1)
    if nested:
        yield f"tensors lie in nested dicts and are named by their path: under {listed(list(nested))}"


def _text(path: _Path) -> str:
    return printable(".".join(map(str, path)))
