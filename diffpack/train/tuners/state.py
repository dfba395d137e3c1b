"""A tuner's state: checked before it is taken, and as a safetensors file that goes with a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from diffpack.errors import CorruptFileError, UsageError
from diffpack.support.atomic import atomic_file
from diffpack.train.tuners.slot import Slot, require_positions

STATE_FILE = "sparse_tuner.safetensors"
"""The file's name in a checkpoint's folder."""
_ABOUT = "sparse_tuner"
_PARTS = ("positions", "values", "base")


def checked(state: Mapping[str, Any], slots: Sequence[Slot]) -> dict[str, dict[str, Any]]:
    """The slots' parts of a tuner's state, by name.

    Raises `UsageError` if it is no such state, or of a tuner that trains other tensors or has them in another order
    (an optimiser's state goes by the order).
    """
    try:
        parts: dict[str, dict[str, Any]] = {name: dict(part) for name, part in state["slots"].items()}
        untouched = state["untouched"].items
        complete = all(set(part) == set(_PARTS) for part in parts.values()) and callable(untouched)
    except (KeyError, TypeError, AttributeError, ValueError):
        complete = False
    if not complete:
        raise UsageError("no state of a SparseTuner, or one of an older version: train from the start")
    wanted = {name: part["positions"] is None for name, part in parts.items()}
    if list(wanted.items()) != [(slot.name, slot.positions is None) for slot in slots]:
        names = ", ".join(f"{name} (whole)" if whole else name for name, whole in wanted.items())
        raise UsageError(
            f"the tuner's state is of other tensors, or has them in another order: make the tuner with {names} in this "
            "order (at any positions: the state's are taken)"
        )
    for slot in slots:
        part, size = parts[slot.name], slot.parameter.numel()
        count, kept = size, 0
        if part["positions"] is not None:
            require_positions(slot.name, part["positions"], size)
            count = kept = part["positions"].numel()
        if part["values"].shape != (count,) or part["base"].shape != (kept,):
            raise UsageError(f"the tuner's state: {slot.name!r} has not as many values as positions")
    return parts


def write_state(state: Mapping[str, Any], path: Path) -> None:
    """Write a tuner's state; the file appears whole or not at all."""
    tensors = {
        f"{part}/{name}": value.contiguous()
        for name, parts in state["slots"].items()
        for part, value in parts.items()
        if value is not None
    }
    about = {"slots": list(state["slots"]), "untouched": state["untouched"]}
    with atomic_file(path, replace=True) as file:
        file.write(save(tensors, {_ABOUT: json.dumps(about)}))


def read_state(path: Path) -> dict[str, Any]:
    """Read what `write_state` wrote. Raises `CorruptFileError` if the file is none, `OSError` if it cannot be read."""
    try:
        with safe_open(path, "pt") as file:
            about = json.loads(file.metadata()[_ABOUT])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        slots = {
            name: {
                "positions": tensors.get(f"positions/{name}"),
                **{part: tensors[f"{part}/{name}"] for part in _PARTS[1:]},
            }
            for name in about["slots"]
        }
        return {"slots": slots, "untouched": dict(about["untouched"])}
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CorruptFileError(f"{path}: no state of a SparseTuner ({error}); resume from another checkpoint") from None
