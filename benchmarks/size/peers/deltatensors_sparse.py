"""deltatensors, strategy `sparse`, told to keep as large a part of each tensor as changes in the whole model.

That is the kindest setting: at sparsity 0, which keeps every change, it stores 12 bytes for every entry of the model.
"""

from __future__ import annotations

from pathlib import Path

import deltatensors
import numpy as np
from safetensors.numpy import save_file

from benchmarks.size.peers.model_folder import folder
from benchmarks.size.tensors import read, reference


def encode(base: Path, tuned: Path, out: Path) -> None:
    known, tensors = read(base), read(tuned)
    changed = sum(int((reference(known, name, tensor) != tensor.words).sum()) for name, tensor in tensors.items())
    sparsity = 1 - changed / sum(tensor.words.size for tensor in tensors.values())
    with folder(base) as before, folder(tuned) as after:
        deltatensors.save_delta_from_paths(out, after, before, strategy="sparse", sparsity=sparsity)


def decode(base: Path, out: Path, result: Path) -> None:
    with folder(base) as before:
        arrays = deltatensors.load_delta_from_paths(out, before)
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, result)
