"""XOR with the base, split into byte planes, zstd-3: ZipLLM's BitX."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.size.peers import aligned, frames
from benchmarks.size.tensors import read, word_type, write

LEVEL = 3


def encode(base: Path, tuned: Path, out: Path) -> None:
    known, tensors = read(base), read(tuned)
    before = aligned.base_runs(known, tensors)
    streams = []
    for dtype, words in aligned.runs(tensors).items():
        flips = words ^ before[dtype]
        streams += list(np.ascontiguousarray(flips.view(np.uint8).reshape(-1, flips.itemsize).T))
    frames.save(out, {"tensors": aligned.description(tensors)}, streams, LEVEL)


def decode(base: Path, out: Path, result: Path) -> None:
    header, planes = frames.load(out)
    tensors = aligned.described(header["tensors"])
    restored = {}
    for dtype, words in aligned.base_runs(read(base), tensors).items():
        count = word_type(dtype).itemsize
        flips = np.ascontiguousarray(np.stack(planes[:count], axis=1)).view(word_type(dtype))[:, 0]
        planes = planes[count:]
        restored[dtype] = words ^ flips
    write(result, aligned.cut(restored, tensors))
