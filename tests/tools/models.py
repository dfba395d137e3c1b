"""Small models, how they are written, and what equality means."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from diffpack.checkpoints.safetensors_header import make_header, make_index
from diffpack.tensors.dtypes import array_words, from_numpy
from diffpack.tensors.info import TensorInfo

Arrays = dict[str, np.ndarray[Any, Any]]


def infos(arrays: Mapping[str, Any]) -> dict[str, TensorInfo]:
    found = {}
    for name, array in arrays.items():
        dtype = from_numpy(np.asarray(array).dtype)
        assert dtype is not None
        found[name] = TensorInfo(dtype, np.asarray(array).shape)
    return found


def write_safetensors(path: Path, arrays: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> Path:
    """Write arrays with a header of ours, so that the bytes are the same in every run."""
    tensors = infos(arrays)
    raw = make_header(tensors, metadata or {})
    order = sorted(tensors, key=lambda name: -tensors[name].dtype.word_bits)
    body = b"".join(array_words(np.asarray(arrays[name]), tensors[name].dtype).tobytes() for name in order)
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + body)
    return path


def write_shards(folder: Path, shards: Mapping[str, Mapping[str, Any]]) -> Path:
    """Write a sharded checkpoint with its index into a folder."""
    folder.mkdir(exist_ok=True)
    for name, arrays in shards.items():
        write_safetensors(folder / name, arrays, {"format": "pt"})
    index = folder / "model.safetensors.index.json"
    index.write_bytes(make_index({name: infos(arrays) for name, arrays in shards.items()}))
    return index


def bits(arrays: Mapping[str, Any]) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Names, dtypes, shapes and bytes: what equality means here."""
    return {
        name: (np.asarray(array).dtype.name, np.asarray(array).shape, np.ascontiguousarray(array).tobytes())
        for name, array in arrays.items()
    }


def model(seed: int = 0) -> Arrays:
    """A small model with matrices, vectors, an integer buffer, a 0-dim and a zero-size tensor."""
    rng = np.random.default_rng(seed)
    return {
        "encoder.0.weight": rng.standard_normal((48, 32)).astype(np.float32),
        "encoder.0.bias": rng.standard_normal(48).astype(np.float32),
        "encoder.1.weight": rng.standard_normal((64, 48)).astype(np.float16),
        "embed": rng.standard_normal((100, 16)).astype(np.float32),
        "ids": np.arange(64, dtype=np.int64),
        "mask": rng.integers(0, 2, 16).astype(bool),
        "scale": np.array(0.5, np.float32),
        "empty": np.zeros((0, 7), np.float32),
    }


def tune(base: Mapping[str, Any], density: float = 0.02, seed: int = 1) -> Arrays:
    """Change a fraction of every float tensor's entries."""
    rng = np.random.default_rng(seed)
    tuned = {}
    for name, array in base.items():
        array = np.array(array)
        if array.dtype.kind == "f" and array.size:
            where = rng.random(array.shape) < density
            array[where] += rng.normal(0, 0.01, int(where.sum())).astype(array.dtype)
        tuned[name] = array
    return tuned
