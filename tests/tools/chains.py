"""Random chains of checkpoints: whatever may happen to a tensor from one to the next."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from hypothesis import strategies as st

Arrays = dict[str, Any]

DTYPES = [np.dtype(kind) for kind in (np.float32, np.float64, np.float16, ml_dtypes.bfloat16, np.int16, np.complex64)]
NAMES = ["w", "b", "x.w", "x.b", "x.y.w"]
RENAMES = [(("x.", ""),), (("", "x."),), (("x.", "z."),), (("w", "v"), ("", "m.")), (("x.y.", "x."), ("x.", "x.y."))]
KINDS = ["nothing", "change", "change", "change", "most", "back", "remove", "new", "replace", "resize", "retype", "tie"]


def filled(rng: np.random.Generator, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Any:
    """Any numbers, some of them the same in every array: zeros of both signs, infinities, NaNs with payloads."""
    if dtype.kind in "iu":
        return rng.integers(-3, 4, shape).astype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    raw = rng.integers(0, 256, size).astype(np.uint8).view(dtype).reshape(shape)
    plain = rng.standard_normal(shape).astype(dtype)
    return np.where(rng.random(shape) < 0.3, raw, plain)


@st.composite
def chains(draw: Any, links: int = 3, kinds: tuple[str, ...] = tuple(KINDS), renames: bool = True) -> list[Arrays]:
    """A base and the results of `links` steps."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    base: Arrays = {}
    for name in draw(st.sets(st.sampled_from(NAMES), min_size=1)):
        shape = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=2)))
        base[name] = filled(rng, draw(st.sampled_from(DTYPES)), shape)
    states = [base]
    for _ in range(links):
        states.append(_next(draw, rng, states, kinds))
    return states


def _next(draw: Any, rng: np.random.Generator, states: list[Arrays], kinds: tuple[str, ...]) -> Arrays:
    state = {name: array.copy() for name, array in states[-1].items()}
    for name in sorted(state):
        _mutate(draw(st.sampled_from(kinds)), name, state, states, rng)
    if "new" in kinds and draw(st.booleans()):
        state.setdefault(draw(st.sampled_from(NAMES)), filled(rng, DTYPES[0], (2, 3)))
    return state


def _mutate(kind: str, name: str, state: Arrays, states: list[Arrays], rng: np.random.Generator) -> None:
    array = state[name]
    if kind in ("change", "most"):
        fresh = filled(rng, array.dtype, array.shape)
        state[name] = np.where(rng.random(array.shape) < (0.3 if kind == "change" else 0.8), fresh, array)
    elif kind == "back" and name in states[0]:
        state[name] = states[0][name].copy()
    elif kind == "remove":
        del state[name]
    elif kind == "replace":
        state[name] = filled(rng, np.dtype(np.uint8), (5,))
    elif kind == "resize":
        shape = tuple(int(size) for size in rng.integers(1, 5, array.ndim))
        grown = np.zeros(shape, array.dtype)
        both = tuple(slice(min(a, b)) for a, b in zip(shape, array.shape, strict=True))
        grown[both] = array[both]
        state[name] = grown
    elif kind == "retype" and array.dtype.kind == "f":
        with np.errstate(all="ignore"):
            state[name] = array.astype(DTYPES[int(rng.integers(4))])
    elif kind == "tie":
        other = sorted(state)[int(rng.integers(len(state)))]
        state[name] = state[other].copy()


def rename_arrays(arrays: Arrays, rules: tuple[tuple[str, str], ...]) -> Arrays:
    """Rename as the format does: the first rule that fits. Gives nothing new if two would get one name."""
    found: Arrays = {}
    for name, array in arrays.items():
        rule = next((rule for rule in rules if name.startswith(rule[0])), ("", ""))
        found[rule[1] + name[len(rule[0]) :]] = array
    return found if len(found) == len(arrays) else arrays
