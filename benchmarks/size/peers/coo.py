"""int32 flat index and new value, zstd-3: the sparse layout of TRL and vLLM (`<name>.indices`, `<name>.values`).

They store it uncompressed in safetensors; zstd is added here, in one frame for all indices and one for each width of
value, which costs nothing in comparison and makes it smaller. A tensor without a counterpart is stored whole.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.size.peers import frames
from benchmarks.size.tensors import Tensor, Tensors, read, reference, word_type, write

LEVEL = 3


def encode(base: Path, tuned: Path, out: Path) -> None:
    known, tensors = read(base), read(tuned)
    header, indices, values = [], [], {}
    for name, tensor in tensors.items():
        where = np.flatnonzero(reference(known, name, tensor) != tensor.words)
        header.append([name, tensor.dtype, tensor.shape, where.size])
        indices.append(where.astype(np.int32))
        values.setdefault(tensor.words.dtype.name, []).append(tensor.words[where])
    streams = [np.concatenate(parts) for parts in (indices, *values.values())]
    frames.save(out, {"tensors": header}, streams, LEVEL)


def decode(base: Path, out: Path, result: Path) -> None:
    known = read(base)
    header, (indices, *streams) = frames.load(out)
    values = {stream.dtype.name: stream for stream in streams}
    restored: Tensors = {}
    for name, dtype, shape, count in header["tensors"]:
        empty = Tensor(dtype, tuple(shape), np.zeros(int(np.prod(shape)), word_type(dtype)))
        words = reference(known, name, empty).copy()
        kind = words.dtype.name
        words[indices[:count]] = values[kind][:count]
        indices, values[kind] = indices[count:], values[kind][count:]
        restored[name] = Tensor(dtype, empty.shape, words)
    write(result, restored)
