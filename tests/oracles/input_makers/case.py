"""A case: its folder, what the tool says its files hold, and who wrote it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

INPUTS = Path(__file__).parent.parent / "inputs"
VERSIONS = "versions.json"
TENSORS = "tensors.json"
CHANGED = 0.03
"""The share of a tensor's entries that tuning changes; at least one of each tensor."""
_DTYPES = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "uint16": "U16", "int16": "I16", "uint32": "U32", "int32": "I32",
    "uint64": "U64", "int64": "I64", "float16": "F16", "float32": "F32", "float64": "F64", "bfloat16": "BF16",
    "complex64": "C64", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
}  # fmt: skip
"""What numpy and torch call dtypes, and what safetensors does."""


def fresh(name: str, *tools: str) -> Path:
    """An empty folder for a case, written by these packages."""
    folder = INPUTS / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / VERSIONS).write_text(json.dumps({tool: version(tool) for tool in tools}) + "\n")
    return folder


def says(folder: Path, **sides: Mapping[str, Any]) -> None:
    """Note what the tool says the tensors of `base` and `tuned` are: dtype, shape, SHA-256 of the bytes."""
    told = {side: {name: _entry(tensor) for name, tensor in tensors.items()} for side, tensors in sides.items()}
    lines = [f' "{side}": {{\n' + ",\n".join(
        f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in sorted(tensors.items())
    ) + "\n }" for side, tensors in told.items()]  # fmt: skip
    (folder / TENSORS).write_text("{\n" + ",\n".join(lines) + "\n}\n")


def _entry(tensor: Any) -> list[Any]:
    dtype, shape, raw = _content(tensor)
    return [dtype, shape, hashlib.sha256(raw).hexdigest()]


def _content(tensor: Any) -> tuple[str, list[int], bytes]:
    if hasattr(tensor, "detach"):  # torch's
        import torch

        tensor = tensor.detach().cpu().contiguous()
        raw = tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
        return _DTYPES[str(tensor.dtype).removeprefix("torch.")], list(tensor.shape), raw
    array = np.asarray(tensor)
    return _DTYPES[array.dtype.name], list(array.shape), np.ascontiguousarray(array).tobytes()


def tuned_array(array: Any, seed: int) -> np.ndarray:
    """An array as a tuning could have left it: few entries changed, by little."""
    rng = np.random.default_rng(seed)
    array = np.array(array)
    if array.dtype.kind != "f" or not array.size:
        return array
    flat = array.reshape(-1)
    places = rng.choice(flat.size, max(1, round(CHANGED * flat.size)), replace=False)
    flat[places] = flat[places] * array.dtype.type(1.01) + array.dtype.type(0.001)
    return array


def tune(module: Any, seed: int = 1) -> Any:
    """Change few entries of every float tensor of a torch module, tied ones once; gives the module."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in module.parameters():  # tied ones come once
            if tensor.is_floating_point() and tensor.numel():
                flat = tensor.data.view(-1)
                places = torch.randperm(flat.numel(), generator=generator)[: max(1, round(CHANGED * flat.numel()))]
                flat[places] = (flat[places].float() * 1.01 + 0.001).to(flat.dtype)
    return module


def state(module: Any) -> dict[str, Any]:
    """A torch module's tensors by name, copied."""
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
