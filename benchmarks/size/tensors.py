"""safetensors files as named arrays of unsigned words, with numpy alone: the peers' environment has no diffpack."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.unsignedinteger[Any]]

WORD_BYTES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}
FLOATS = {"F64", "F32", "F16", "BF16"}


@dataclass(frozen=True)
class Tensor:
    """A tensor's dtype (safetensors' name), shape and words (1-D, C order)."""

    dtype: str
    shape: tuple[int, ...]
    words: Words


Tensors = dict[str, Tensor]


def read(path: Path) -> Tensors:
    """Read a safetensors file, in the order of its names."""
    data = np.fromfile(path, np.uint8)
    size = int.from_bytes(data[:8].tobytes(), "little")
    header = json.loads(data[8 : 8 + size].tobytes())
    found = {}
    for name in sorted(set(header) - {"__metadata__"}):
        entry = header[name]
        start, stop = (8 + size + offset for offset in entry["data_offsets"])
        words = data[start:stop].view(word_type(entry["dtype"]))
        found[name] = Tensor(entry["dtype"], tuple(entry["shape"]), words)
    return found


def write(path: Path, tensors: Tensors) -> None:
    """Write a safetensors file."""
    order = sorted(tensors, key=lambda name: (-WORD_BYTES.get(tensors[name].dtype, 1), name))
    header: dict[str, Any] = {}
    start = 0
    for name in order:
        tensor = tensors[name]
        stop = start + tensor.words.nbytes
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [start, stop]}
        start = stop
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    with path.open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        for name in order:
            file.write(tensors[name].words.tobytes())


def word_type(dtype: str) -> np.dtype[Any]:
    return np.dtype(f"<u{WORD_BYTES.get(dtype, 1)}")


def reference(base: Tensors, name: str, tensor: Tensor) -> Words:
    """Give the words a tensor is a change of: the base's of that name, dtype and shape, otherwise zeros."""
    found = base.get(name)
    if found and (found.dtype, found.shape) == (tensor.dtype, tensor.shape):
        return found.words
    return np.zeros_like(tensor.words)


def line(tensor: Tensor) -> npt.NDArray[np.int64]:
    """Put words on the line of ordered integers, where neighbouring floats are one apart."""
    signed = tensor.words.view(tensor.words.dtype.name[1:])
    if tensor.dtype in FLOATS:
        signed = np.where(signed >= 0, signed, signed ^ np.iinfo(signed.dtype).max)
    return signed.astype(np.int64)
