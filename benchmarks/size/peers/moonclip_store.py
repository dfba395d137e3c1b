"""moonclip's checkpoint store: the base as a full snapshot, the tuned model as a delta of it.

It has no delta file, so what counts are the files the second snapshot adds to the store; the manifest, which both
share, does not. Its packs are padded to 4 KiB.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
from moonclip import MoonclipManager

from benchmarks.size.tensors import Tensor, Tensors, read, word_type, write

NAMES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16", "I64": "int64"}
NEVER = 10**9  # steps until a full snapshot is forced


def store(folder: Path) -> MoonclipManager:
    return MoonclipManager(storage_root=str(folder), async_save=False, full_every_steps=NEVER)


def described(tensors: Tensors) -> dict[str, tuple[list[int], str, bytes]]:
    return {name: (list(t.shape), NAMES.get(t.dtype, t.dtype), t.words.tobytes()) for name, t in tensors.items()}


def encode(base: Path, tuned: Path, out: Path) -> None:
    tensors = read(tuned)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manager = store(folder)
        manager.save_tensors(0, described(read(base)))
        snapshot = manager.save_tensors(1, described(tensors))
        manager.flush()
        shutil.copytree(folder / "snapshots" / snapshot, out)
        # For decode and not counted: a copy of the store, with the base in it.
        shutil.copytree(folder, out.with_name(out.name + ".store"))
    out.with_name(out.name + ".names").write_text(json.dumps([[n, t.dtype, t.shape] for n, t in tensors.items()]))


def decode(base: Path, out: Path, result: Path) -> None:  # noqa: ARG001 - the base is in the store
    _, found = store(out.with_name(out.name + ".store")).load_latest()
    restored = {}
    for name, dtype, shape in json.loads(out.with_name(out.name + ".names").read_text()):
        restored[name] = Tensor(dtype, tuple(shape), np.frombuffer(bytes(found[name]), word_type(dtype)))
    write(result, restored)
