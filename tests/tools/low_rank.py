"""Models whose matrices change along few directions, and a file with factors, made by hand."""

from __future__ import annotations

import numpy as np

from tests.tools import craft
from tests.tools.craft import Stream, Tensors, stream
from tests.tools.models import Arrays

FACTOR_SCALE = np.float32(2**-12)
GRID_SCALE = np.float32(2**-16)


def few_directions(base: Arrays, directions: int = 3, seed: int = 1, size: float = 0.02) -> Arrays:
    """Change every float matrix by a product of so many directions, and the other floats by small numbers."""
    rng = np.random.default_rng(seed)
    tuned = {}
    for name, array in base.items():
        moved = np.zeros(array.shape)
        if array.dtype.kind in "fV" and array.ndim == 2:
            left, right = (rng.standard_normal((length, directions)) for length in array.shape)
            moved = left @ right.T * size
        elif array.dtype.kind in "fV":
            moved = rng.standard_normal(array.shape) * size
        tuned[name] = (array.astype(np.float64) + moved).astype(array.dtype) if moved.any() else array
    return tuned


def matrices(seed: int = 0, dtype: type = np.float32) -> Arrays:
    """A small model of matrices that are worth factors, a vector and an integer buffer."""
    rng = np.random.default_rng(seed)
    return {
        "body.0.weight": rng.standard_normal((160, 128)).astype(dtype),
        "body.1.weight": rng.standard_normal((96, 192)).astype(dtype),
        "body.bias": rng.standard_normal(64).astype(dtype),
        "head.weight": rng.standard_normal((64, 160)).astype(dtype),
        "ids": np.arange(32, dtype=np.int64),
    }


def by_hand(base: Arrays) -> tuple[bytes, Tensors]:
    """A diff of two float32 matrices, "a" of rank 2 and "b" of rank 1, with a grid value in the first; its result."""
    left = {"a": [[1, -2, 3, 0] * 5, [0, 1, 0, -1] * 5], "b": [[2, 0, 0, -1] * 4]}
    right = {"a": [[4, 0, -4, 1] * 4, [2, 2, 0, 0] * 4], "b": [[1, 2, 3, 4] * 4]}
    old, new = {}, {}
    units = {name: np.zeros(base[name].shape, np.int32) for name in "ab"}
    units["a"][0, 1] = 2 * 256
    for name in "ab":
        whole = np.array(left[name]).T @ np.array(right[name])
        values = whole.astype(np.float32) * FACTOR_SCALE + units[name].astype(np.float32) * GRID_SCALE
        result = np.where(values == 0, base[name], base[name] + values)
        old[name] = ("F32", base[name].shape, base[name].tobytes())
        new[name] = ("F32", base[name].shape, result.tobytes())
    factors = {
        "values": "int",
        "matrices": [[*base[name].shape, [len(left[name])]] for name in "ab"],
        "ends": [2 * (20 + 16) + 16 + 16],
    }
    group = craft.group(
        ["a", "b"], old, new, positions="levels", values="grid", factors=factors, errors=[250000, 125000],
        result_digests=None,
    )  # fmt: skip
    recipe = {"select": "budget 1000 bytes", "values": "grid", "factors": "of up to 2 directions"}
    members = craft.manifest(
        old, new, [group], requires=["grid", "levels", "lowrank"], error=200000, exact=False, recipe=recipe
    )
    scales = [[int(np.float32(scale).view(np.uint32))] * 2 for scale in (GRID_SCALE, FACTOR_SCALE)]
    line = [number for name in "ab" for side in (left[name], right[name]) for row in side for number in row]
    grid = [int(unit) // 256 for name in "ab" for unit in units[name].reshape(-1)]
    chunks = [
        [stream("u32", scales[0]), stream("u32", scales[1]), stream("u16", [1, 1, 1])],
        _span(line),
        _span(grid, stream("i8", [0, 0, 0])),
    ]
    return craft.build(members, chunks, minor=2), new


def _span(numbers: list[int], *offsets: Stream) -> list[Stream]:
    """A chunk of one class."""
    return [stream("u8", [0, 2]), stream("i8", []), stream("i8", []), *offsets, stream("i16", numbers)]
