"""Which layers an adapter is for, by its settings: those it has no factors of are told, since they stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from itertools import pairwise
from typing import Any

from diffpack.bridges.bridge import Import
from diffpack.errors import UsageError
from diffpack.support.names import listed, printable
from diffpack.support.safe_regex import compile_pattern

_WEIGHT = ".weight"
_ALL_LINEAR = "all-linear"
_UNTOLD = "whether each layer the settings mean has factors was not checked: {error}"
_NESTED = 2  # parts of a name before the number of a layer, where no pattern says what stands there

Meant = Callable[[str], bool]


def note_layers_without(job: Import, config: Mapping[str, Any], adapted: Collection[str]) -> None:
    """Note the layers that `target_modules` names and the adapter has no factors of.

    `adapted` are the weights with factors, by the names PEFT uses. Names are matched as PEFT matches them: whole, or
    from a dot on, or all of one by a regular expression; `exclude_modules`, `layers_to_transform` and
    `modules_to_save` leave layers out. Where an expression is not understood, that is noted.
    """
    modules = {name.removesuffix(_WEIGHT) for name in adapted}
    try:
        meant = _meant(config, modules)
    except UsageError as error:
        job.notes.append(_UNTOLD.format(error=error))
        return
    without = [module for module in _layers(job) if meant(module) and module not in modules]
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


def _meant(config: Mapping[str, Any], modules: Collection[str]) -> Meant:
    """What tells whether a module is meant. Raises `UsageError` for expressions that are not understood."""
    targets = config.get("target_modules")
    if targets == _ALL_LINEAR:  # PEFT itself writes the layers out; by their last names all of them are known
        targets = sorted({module.rpartition(".")[2] for module in modules})
    included, excluded = _named(targets), _named(config.get("exclude_modules"))
    saved = [compile_pattern(rf"(.*\.)?{name}(\..*)?") for name in config.get("modules_to_save") or () if _text(name)]
    whole = targets if isinstance(targets, list) else []
    inside = _of_layers(config) if whole else _any
    return lambda module: (
        included(module)
        and not excluded(module)
        and not any(pattern.matches(module) for pattern in saved)
        and (inside(module) or module in whole)
    )


def _any(_module: str) -> bool:
    return True


def _text(name: object) -> bool:
    return isinstance(name, str)


def _named(names: object) -> Meant:
    """Modules of these names, or of those an expression means; none if it is neither."""
    if isinstance(names, str):
        return compile_pattern(names).matches
    listed_names = names if isinstance(names, list) else []
    return lambda module: any(module == name or module.endswith(f".{name}") for name in listed_names)


def _of_layers(config: Mapping[str, Any]) -> Meant:
    """Modules in the layers of `layers_to_transform`: their number is the first behind what `layers_pattern` means."""
    layers, before = config.get("layers_to_transform"), config.get("layers_pattern")
    if layers is None or layers == []:
        return _any
    wanted = layers if isinstance(layers, list) else [layers]
    names = [before] if isinstance(before, str) else [name for name in before or () if _text(name)]
    patterns = [compile_pattern(rf"(.*\.)?{name}") for name in names if name]

    def inside(module: str) -> bool:
        parts = module.split(".")
        for at, (_, part) in enumerate(pairwise(parts[:-1]), start=1):
            ahead = ".".join(parts[:at])
            fits = any(pattern.matches(ahead) for pattern in patterns) if patterns else at >= _NESTED
            if part.isdecimal() and fits:
                return int(part) in wanted
        return False

    return inside
