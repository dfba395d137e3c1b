"""ZipNN's delta mode: XOR inside the package, then byte groups and Huffman or zstd as it decides.

It wants two buffers of one length, so tensors are aligned by name first, one buffer a dtype.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from zipnn import ZipNN

from benchmarks.size.peers import aligned
from benchmarks.size.tensors import read, word_type, write

DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


def coder(dtype: str) -> ZipNN:
    return ZipNN(input_format="byte", bytearray_dtype=DTYPES.get(dtype, "float32"), delta_compressed_type="byte")


def encode(base: Path, tuned: Path, out: Path) -> None:
    known, tensors = read(base), read(tuned)
    before = aligned.base_runs(known, tensors)
    parts = [
        bytes(coder(dtype).compress(words.tobytes(), delta_second_data=before[dtype].tobytes()))
        for dtype, words in aligned.runs(tensors).items()
    ]
    head = json.dumps([aligned.description(tensors), [len(part) for part in parts]]).encode()
    out.write_bytes(len(head).to_bytes(8, "little") + head + b"".join(parts))


def decode(base: Path, out: Path, result: Path) -> None:
    data = out.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    entries, sizes = json.loads(data[8:start])
    tensors = aligned.described(entries)
    restored = {}
    for size, (dtype, words) in zip(sizes, aligned.base_runs(read(base), tensors).items(), strict=True):
        part = data[start : start + size]
        start += size
        plain = coder(dtype).decompress(part, delta_second_data=words.tobytes())
        restored[dtype] = np.frombuffer(plain, word_type(dtype))
    write(result, aligned.cut(restored, tensors))
