"""Gaps between changed positions at u16 or u32 and XOR or new values, zstd-1: the layout NeMo-RL ships updates in.

For each tensor the gaps take the narrowest width that holds the largest of them, and the smaller of XOR and new values
is kept. A tensor without a counterpart is stored whole.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import zstandard

from benchmarks.size.peers import frames
from benchmarks.size.tensors import Tensor, Tensors, read, reference, word_type, write

LEVEL = 1


def encode(base: Path, tuned: Path, out: Path) -> None:
    known = read(base)
    header, streams = [], []
    compressor = zstandard.ZstdCompressor(level=LEVEL)
    for name, tensor in read(tuned).items():
        before = reference(known, name, tensor)
        where = np.flatnonzero(before != tensor.words)
        gaps = np.diff(where, prepend=-1) - 1
        width = np.uint16 if gaps.size == 0 or gaps.max() <= np.iinfo(np.uint16).max else np.uint32
        new = tensor.words[where]
        flips = before[where] ^ new
        sizes = [len(compressor.compress(values.tobytes())) for values in (new, flips)]
        header.append([name, tensor.dtype, tensor.shape, sizes[1] < sizes[0]])
        streams += [gaps.astype(width), flips if sizes[1] < sizes[0] else new]
    frames.save(out, {"tensors": header}, streams, LEVEL)


def decode(base: Path, out: Path, result: Path) -> None:
    known = read(base)
    header, streams = frames.load(out)
    restored: Tensors = {}
    for at, (name, dtype, shape, flipped) in enumerate(header["tensors"]):
        empty = Tensor(dtype, tuple(shape), np.zeros(int(np.prod(shape)), word_type(dtype)))
        words = reference(known, name, empty).copy()
        gaps, values = streams[2 * at : 2 * at + 2]
        where = np.cumsum(gaps.astype(np.int64) + 1) - 1
        words[where] = words[where] ^ values if flipped else values
        restored[name] = Tensor(dtype, empty.shape, words)
    write(result, restored)
