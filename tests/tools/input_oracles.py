"""The table in docs/inputs.md, and the frozen files that its lines speak of."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffpack.checkpoints import Checkpoint
from tests.tools import ORACLES, ROOT

INPUTS = ORACLES / "inputs"
PAGE = (ROOT / "docs" / "inputs.md").read_text()
VERSIONS, TENSORS = "versions.json", "tensors.json"
_DTYPES = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "int16": "I16", "int32": "I32", "int64": "I64", "complex64": "C64",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "float16": "F16", "bfloat16": "BF16", "float32": "F32",
    "float64": "F64",
}  # fmt: skip
"""What torch and numpy call dtypes, and what diffpack does."""
_LINE = re.compile(r"^\| `([\w-]+)` \|(.+)\|$", re.MULTILINE)

Told = dict[str, tuple[str, tuple[int, ...], str]]
"""Tensors by name: dtype, shape, SHA-256 of the bytes."""


@dataclass(frozen=True)
class Line:
    """A line of the table."""

    case: str
    kind: str
    tool: str
    read: str
    written: str
    back: str
    remarks: str


def lines() -> list[Line]:
    """All lines of the table, in its order."""
    return [Line(case, *(cell.strip() for cell in rest.split("|"))) for case, rest in _LINE.findall(PAGE)]


def member(case: str, name: str) -> Path:
    """The file or folder of a case that is called so, whatever its ending."""
    found = [path for path in (INPUTS / case).iterdir() if path.name.split(".")[0] == name]
    assert len(found) == 1, found
    return found[0]


def told(case: str) -> tuple[Told, Told]:
    """What the tool itself said the base and the tuned file hold."""
    sides = json.loads((INPUTS / case / TENSORS).read_text())
    base, tuned = (
        {name: (dtype, tuple(shape), digest) for name, (dtype, shape, digest) in sides[side].items()}
        for side in ("base", "tuned")
    )
    return base, tuned


def held(checkpoint: Checkpoint) -> Told:
    """What diffpack says a checkpoint holds."""
    return {
        name: (info.dtype.name, info.shape, hashlib.sha256(checkpoint.words(name).tobytes()).hexdigest())
        for name, info in checkpoint.tensors.items()
    }


def read_by_its_library(path: Path) -> Told:
    """What torch, h5py or numpy say that a file, or the files of a folder, hold; none for files of other libraries."""
    found: dict[str, Any] = {}
    for file in [path] if path.is_file() else sorted(path.rglob("*")):
        if file.name.endswith((".pt", ".pth", ".th", ".bin", ".ckpt", ".tar")):
            import torch

            found |= torch.load(file, weights_only=True)
        elif file.suffix == ".h5":
            import h5py

            names: list[str] = []
            with h5py.File(file) as opened:
                opened.visit(names.append)
                found |= {name: opened[name][()] for name in names if isinstance(opened[name], h5py.Dataset)}
        elif file.suffix == ".npz":
            with np.load(file) as opened:
                found |= dict(opened)
    return {name: _entry(tensor) for name, tensor in found.items()}


def _entry(tensor: Any) -> tuple[str, tuple[int, ...], str]:
    if hasattr(tensor, "detach"):
        import torch

        tensor = tensor.detach().contiguous()
        shape, name = tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")
        raw = tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
    else:
        array = np.asarray(tensor)
        shape, name, raw = array.shape, array.dtype.name, np.ascontiguousarray(array).tobytes()
    return _DTYPES[name], shape, hashlib.sha256(raw).hexdigest()


def contents(path: Path) -> dict[str, bytes]:
    """The bytes of a file, or of all files of a folder by their paths."""
    if path.is_file():
        return {"": path.read_bytes()}
    return {item.relative_to(path).as_posix(): item.read_bytes() for item in path.rglob("*") if item.is_file()}
