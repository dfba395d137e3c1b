"""Which formats there are, and how they are told apart. A bridge is loaded when it is used."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path

from diffpack.bridges.bridge import Bridge
from diffpack.checkpoints.file_kinds import KINDS, kind_of
from diffpack.checkpoints.folder import find_weights
from diffpack.errors import CheckpointError, DiffpackError, UsageError

_MODULES = {
    "sparse-safetensors": "sparse_safetensors",
    "sglang-delta": "sglang_delta",
    "composable-sft": "composable_sft",
    "peft-shira": "peft_shira",
    "peft-lora": "peft_lora",
    "hdf5": "hdf5",
    "scipy": "scipy_npz",
}
FORMATS = tuple(_MODULES)
"""The formats `convert` knows besides diffpack's own."""

_SUFFIXES = {".h5": "hdf5", ".hdf5": "hdf5", ".safetensors": "sparse-safetensors", ".npz": "scipy"}
"""Endings of outputs that only one format has."""


def find_bridge(name: str) -> Bridge:
    """A format's bridge. Raises `UsageError` for an unknown one."""
    if name not in _MODULES:
        raise UsageError(f"the format is one of {', '.join(FORMATS)}, not {name!r}")
    bridge: Bridge = import_module(f"diffpack.bridges.formats.{_MODULES[name]}").BRIDGE
    return bridge


def detect(path: Path) -> str:
    """The format of a file or folder.

    Raises `UsageError` if it is none or several could be meant, `CheckpointError` for a part of an adapter.
    """
    from diffpack.bridges.formats.peft_adapter import what_is_wrong  # loaded when it is used, as the bridges are

    if not os.path.exists(path):
        raise DiffpackError(f"{path}: no such file or folder")
    matching = [name for name in FORMATS if find_bridge(name).detect(path)]
    if len(matching) == 1:
        return matching[0]
    wrong = None if matching else what_is_wrong(path)
    if wrong is not None:
        raise wrong
    what = f"could be {' or '.join(matching)}" if matching else f"{_told(path)}no diff, and of no format known here"
    raise UsageError(f"{path}: {what}; say which format it is ({', '.join(FORMATS)})", hint=_of_model(path))


def _of_model(path: Path) -> str:
    """What makes a diff of a whole model; nothing for what is none."""
    try:
        model = (find_weights(path) if path.is_dir() else kind_of(path)) is not None
    except CheckpointError:
        model = False
    return f"of a whole model `diffpack extract --base BASE --tuned {path}` makes a diff" if model else ""


def _told(path: Path) -> str:
    """What a file is by its first bytes, for people. Raises `CheckpointError` for what nothing here reads."""
    kind = kind_of(path) if path.is_file() else None
    return f"is {KINDS[kind]}, " if kind is not None else "is "


def format_of_output(path: Path) -> str:
    """The format an output's ending asks for. Raises `UsageError` if it asks for none."""
    name = _SUFFIXES.get(path.suffix.lower())
    if name is None:
        raise UsageError(f"{path}: its ending does not tell the format; say which it is ({', '.join(FORMATS)})")
    return name
