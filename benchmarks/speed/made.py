"""Pairs of any size, written tensor by tensor: sparse, RL-like, dense, and one of many small tensors."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from benchmarks import pairs
from diffpack.checkpoints.safetensors_header import make_header
from diffpack.tensors.dtypes import DTYPES
from diffpack.tensors.info import TensorInfo

MEGABYTE = 10**6
SIZES = (10, 90, 1000, 4000)
"""Megabytes of each side."""
_SPREAD = 0.02  # of the weights
_SPARSE = 0.01
_RL_STEP = 5e-7
"""Changes 3.3 % of such weights."""
_COLUMNS = 2048
_MOST_ROWS = 10**8 // _COLUMNS  # of a tensor
_SMALL = 18_000
"""Tensors of 64 x 64, as small experts have them: 147 MB."""
_JOINED = 20
_SHARDS = 4

Sides = tuple[npt.NDArray[Any], npt.NDArray[Any]]


@dataclass(frozen=True)
class Kind:
    """A kind of change: what it is, the dtype, and what makes both sides of a tensor from a seed and a size."""

    name: str
    about: str
    dtype: str
    sides: Callable[[np.random.Generator, int], Sides]


def _weights(rng: np.random.Generator, count: int) -> npt.NDArray[np.float32]:
    return rng.standard_normal(count, dtype=np.float32) * np.float32(_SPREAD)


def _sparse(rng: np.random.Generator, count: int) -> Sides:
    """Move a hundredth of the entries, at random places, by a few units in the last place."""
    before = _weights(rng, count).astype(ml_dtypes.bfloat16)
    after = before.copy()
    where = np.flatnonzero(rng.random(count, dtype=np.float32) < _SPARSE)
    after.view(np.uint16)[where] += rng.integers(1, 5, where.size).astype(np.uint16)
    return before, after


def _rl(rng: np.random.Generator, count: int) -> Sides:
    served, trained = pairs.rl_update({"": _weights(rng, count)}, _RL_STEP, rng)
    return served[""], trained[""]


def _dense(rng: np.random.Generator, count: int) -> Sides:
    """Move every entry of float32 by noise of a fiftieth of the spread."""
    before = _weights(rng, count)
    return before, before + np.float32(_SPREAD / 50) * rng.standard_normal(count, dtype=np.float32)


KINDS = (
    Kind("sparse", "bfloat16, 1 % of the entries changed at random", "BF16", _sparse),
    Kind("RL-like", "bfloat16, 3.3 % changed as by a small step of reinforcement learning (docs/size.md)", "BF16", _rl),
    Kind("dense", "float32, every entry moved by noise", "F32", _dense),
)
SMALL = "18,000 tensors"
JOINED = "20 tensors"
"""The same entries, as 18,000 tensors of 64 x 64 and as 20: sparse bfloat16, in four shards."""


def shapes_of(kind: Kind, nbytes: int) -> Iterator[tuple[int, int]]:
    """Shapes of tensors that together are about so many bytes, of 10^8 entries at most."""
    left = nbytes // (DTYPES[kind.dtype].bits // 8) // _COLUMNS
    while left:
        rows = min(left, _MOST_ROWS)
        yield rows, _COLUMNS
        left -= rows


def make(kind: Kind, nbytes: int, folder: Path) -> tuple[Path, Path]:
    """Write a pair unless it is there: base and tuned, two safetensors files."""
    paths = folder / "base.safetensors", folder / "tuned.safetensors"
    if (folder / ".made").exists():
        return paths
    folder.mkdir(parents=True, exist_ok=True)
    shapes = enumerate(shapes_of(kind, nbytes))
    infos = {f"layers.{at:03d}.weight": TensorInfo(DTYPES[kind.dtype], shape) for at, shape in shapes}
    header = make_header(infos, {"format": "pt"})
    rng = np.random.default_rng(0)
    with paths[0].open("wb") as base, paths[1].open("wb") as tuned:
        for file in (base, tuned):
            file.write(len(header).to_bytes(8, "little") + header)
        for info in infos.values():
            for file, side in zip((base, tuned), kind.sides(rng, info.words), strict=True):
                file.write(side.tobytes())
    (folder / ".made").touch()
    return paths


def make_small(folder: Path, tensors: int) -> tuple[Path, Path]:
    """Write the entries of 18,000 small tensors as so many tensors, in shards: two folders."""
    paths = folder / "base", folder / "tuned"
    if (folder / ".made").exists():
        return paths
    before, after = _sparse(np.random.default_rng(1), _SMALL * 64 * 64)
    shape = (64, 64) if tensors == _SMALL else (before.size // tensors // 64, 64)
    names = [f"layers.{at:05d}.weight" for at in range(tensors)]
    for path, side in zip(paths, (before, after), strict=True):
        path.mkdir(parents=True, exist_ok=True)
        parts = dict(zip(names, side.reshape(tensors, *shape), strict=True))
        index = {}
        for shard in range(_SHARDS):
            own = names[shard * tensors // _SHARDS : (shard + 1) * tensors // _SHARDS]
            file = f"model-{shard + 1:05d}-of-{_SHARDS:05d}.safetensors"
            pairs.write(path / file, {name: parts[name] for name in own})
            index |= dict.fromkeys(own, file)
        (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    (folder / ".made").touch()
    return paths


def pair_of(name: str, megabytes: int, work: Path) -> tuple[Path, Path]:
    """A pair by its kind's name and its size."""
    folder = work / f"{name.replace(' ', '-').replace(',', '')}-{megabytes}"
    if name in (SMALL, JOINED):
        return make_small(folder, _SMALL if name == SMALL else _JOINED)
    return make(next(kind for kind in KINDS if kind.name == name), megabytes * MEGABYTE, folder)
