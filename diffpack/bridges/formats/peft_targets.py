"""Which layers an adapter is for, by its settings: those it has no factors of are told, since they stay as they are."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import pairwise
from typing import Any

from diffpack.bridges.bridge import Import
from diffpack.support.names import listed, printable

_WEIGHT = ".weight"
_ALL_LINEAR = "all-linear"
_UNTOLD = (
    "{key} is a regular expression, which is not run here: whether each layer it means has factors was not checked"
)


def note_layers_without(job: Import, config: Mapping[str, Any], adapted: Collection[str]) -> None:
    """Note the layers that `target_modules` names and the adapter has no factors of.

    `adapted` are the weights with factors, by the names PEFT uses. Names are matched as PEFT matches them: whole, or
    from a dot on; `exclude_modules`, `layers_to_transform` and `modules_to_save` leave layers out. What the settings
    say by a regular expression is not looked at, and that is noted.
    """
    modules = {name.removesuffix(_WEIGHT) for name in adapted}
    targets = config.get("target_modules")
    if targets == _ALL_LINEAR:  # PEFT itself writes the layers out; by their last names all of them are known
        targets = sorted({module.rpartition(".")[2] for module in modules})
    for key in ("target_modules", "exclude_modules"):
        if isinstance(config.get(key), str) and config[key] != _ALL_LINEAR:
            job.notes.append(_UNTOLD.format(key=key))
            return
    if not isinstance(targets, list):
        return
    without = [module for module in _layers(job) if _meant(module, targets, config) and module not in modules]
    if without:
        which = listed([printable(module) for module in sorted(without)])
        count = f"{len(without)} layer{'s' if len(without) > 1 else ''}"
        job.notes.append(f"no factors of {count} that target_modules names, left as the base has them: {which}")


def _layers(job: Import) -> list[str]:
    """The modules of the base that have a weight of at least two dimensions, by the names PEFT uses."""
    base = job.needed_base
    return [
        name.removesuffix(_WEIGHT)
        for name, own in job.view().items()
        if name.endswith(_WEIGHT) and len(base.info(own).shape) > 1
    ]


def _meant(module: str, targets: Iterable[Any], config: Mapping[str, Any]) -> bool:
    if not _matches(module, targets) or _matches(module, config.get("exclude_modules") or ()):
        return False
    if any(f".{saved}." in f".{module}." for saved in config.get("modules_to_save") or ()):
        return False
    layers = config.get("layers_to_transform")
    if layers is None:
        return True
    return _number(module, config.get("layers_pattern")) in (layers if isinstance(layers, list) else [layers])


def _matches(module: str, names: Iterable[Any]) -> bool:
    return any(module == name or module.endswith(f".{name}") for name in names)


def _number(module: str, pattern: Any) -> int | None:
    """The number of the layer a module is in: that behind a part of the pattern, without one the last there is."""
    parts = module.split(".")
    wanted = [pattern] if isinstance(pattern, str) else pattern
    numbers = [
        int(part) for before, part in pairwise(parts[:-1]) if part.isdecimal() and (not wanted or before in wanted)
    ]
    return numbers[-1] if numbers else None
