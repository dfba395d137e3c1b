"""Pairs of checkpoints to measure on: made from the real ones, the same in every run.

Arrays are numpy arrays (bfloat16 as ml_dtypes has it), tensor by tensor in the order of the mapping given: the random
numbers are drawn in that order.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

import diffpack
from diffpack.checkpoints import open_checkpoint
from diffpack.checkpoints.safetensors_header import make_header
from diffpack.tensors.dtypes import array_words, from_numpy
from diffpack.tensors.info import TensorInfo

Arrays = dict[str, npt.NDArray[Any]]

SPARSE_DENSITY = 0.005
SPARSE_SIGMA = 0.01
ROUNDING = 2**-8  # half the distance between two bfloat16 numbers is at most this part of the smaller
DENSE_STRENGTH = 0.02  # of a tensor's root mean square; ordinary short fine-tunes move weights by 0.002 to 0.006 of it


def read(path: Path) -> Arrays:
    """All tensors of a float32 and int64 checkpoint, in the order of its data."""
    checkpoint = open_checkpoint(path)
    return {
        name: checkpoint.words(name).view("<f4" if info.dtype.name == "F32" else "<i8").reshape(info.shape)
        for name, info in checkpoint.tensors.items()
    }


def shared(base: Path, tuned: Path) -> tuple[Arrays, Arrays]:
    """Give the tuned checkpoint's tensors from both sides, in the order diffpack gives them."""
    sides = [diffpack.load(path, diffpack.extract(path, path)) for path in (base, tuned)]
    before, after = ({name: side[name] for name in sides[1]} for side in sides)
    return before, after


def rounded(arrays: Arrays) -> Arrays:
    """Round every tensor to bfloat16."""
    return {name: array.astype(ml_dtypes.bfloat16) for name, array in arrays.items()}


def sparse_update(arrays: Arrays) -> Arrays:
    """Change 0.5 % of the float32 entries at random places by N(0, 0.01)."""
    rng = np.random.default_rng(0)
    tuned = {}
    for name, array in arrays.items():
        tuned[name] = array.copy()
        if array.dtype == np.float32:
            flat = tuned[name].reshape(-1)
            where = np.flatnonzero(rng.random(flat.size) < SPARSE_DENSITY)
            flat[where] += rng.normal(0, SPARSE_SIGMA, where.size).astype(np.float32)
    return tuned


def dense_update(arrays: Arrays) -> Arrays:
    """Move every float32 entry by N(0, (0.02 r)^2), r the root mean square of its tensor."""
    rng = np.random.default_rng(0)
    tuned = {}
    for name, array in arrays.items():
        tuned[name] = array.copy()
        if array.dtype == np.float32:
            strength = DENSE_STRENGTH * np.sqrt(np.mean(np.square(array, dtype=np.float64)))
            tuned[name] += (strength * rng.standard_normal(array.shape)).astype(np.float32)
    return tuned


def rl_update(halves: Arrays, step: float, rng: np.random.Generator | None = None) -> tuple[Arrays, Arrays]:
    """Make an RL-like bfloat16 update: a float32 master, rounded before and after a small step.

    The master is w + u |w| 2^-8 with u uniform in [-1/2, 1/2]; the step has a random sign and the size `step` x L with
    L lognormal(0, 1). At 1e-6, 3e-6 and 1e-5 it changes 1.4, 4.1 and 12 % of MiniLM's weights.
    """
    rng = np.random.default_rng(0) if rng is None else rng
    served, trained = {}, {}
    for name, weights in halves.items():
        w = weights.astype(np.float32)
        master = w + rng.uniform(-0.5, 0.5, w.shape).astype(np.float32) * np.abs(w) * ROUNDING
        moved = step * rng.choice([-1, 1], w.shape) * rng.lognormal(0, 1, w.shape)
        served[name] = master.astype(ml_dtypes.bfloat16)
        trained[name] = (master + moved).astype(np.float32).astype(ml_dtypes.bfloat16)
    return served, trained


def write(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write a safetensors file whose bytes are the same in every run."""
    tensors = {}
    for name, array in arrays.items():
        dtype = from_numpy(array.dtype)
        if dtype is None:
            raise ValueError(f"{name}: no dtype for {array.dtype}")
        tensors[name] = TensorInfo(dtype, array.shape)
    header = make_header(tensors, {"format": "pt"})
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for name in sorted(tensors, key=lambda name: -tensors[name].dtype.word_bits):
            file.write(array_words(arrays[name], tensors[name].dtype).tobytes())
