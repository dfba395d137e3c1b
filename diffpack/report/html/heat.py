"""Density by module and layer, of all tasks together and of each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

from diffpack.diff.stats import DiffStats, TensorStats
from diffpack.report.html.scale import Scale
from diffpack.report.parts import NO_LAYER, layer_of, module_of
from diffpack.support.names import natural

MOST_MODULES = 60
MOST_LAYERS = 128
"""Beyond these a table is no longer looked at: those of fewest bytes are summed as `OTHERS`."""
MOST_NUMBERS = 150_000
"""Counts a page carries for single tasks (some 900 kB of text); with more tasks the totals are shown alone."""
OTHERS = "(others)"

_Place = tuple[str, str]


@dataclass(frozen=True)
class Cell:
    """A module of a layer: sums over tasks; `number` counts the cells that hold something, row by row."""

    number: int
    changed: int
    entries: int
    nbytes: int
    level: int | None

    @property
    def density(self) -> float:
        """Changed entries / entries of the tensors that diffs store something of."""
        return self.changed / self.entries if self.entries else 0.0


@dataclass(frozen=True)
class LayerGroup:
    """Layers that are numbered under one name: `encoder.layer`, 0 to 11; those without a number have none."""

    name: str
    numbers: tuple[str, ...]


@dataclass(frozen=True)
class HeatMap:
    """Rows are modules, columns are layers, cells without any stored tensor are None.

    `each` has what a script needs to show one task; None where these are too many.
    """

    layers: tuple[LayerGroup, ...]
    modules: tuple[str, ...]
    cells: tuple[tuple[Cell | None, ...], ...]
    scale: Scale
    each: dict[str, Any] | None


def heat_map(diffs: Sequence[DiffStats]) -> HeatMap | None:
    """Sum tensors by module and layer. None where tensors were not counted, or none is stored."""
    if not any(item.tensors for item in diffs):
        return None
    axes = _Axes(diffs)
    counted = [axes.summed(item.tensors) for item in diffs]
    total: dict[_Place, list[int]] = {}
    for sums in counted:
        for place, numbers in sums.items():
            total[place] = [a + b for a, b in zip(total.get(place, (0, 0, 0)), numbers, strict=True)]
    order = [(module, layer) for module in axes.modules for layer in axes.layers if (module, layer) in total]
    scale = Scale.of(changed / entries for changed, entries, _ in total.values() if entries)
    cells: dict[_Place, Cell] = {}
    for number, place in enumerate(order):
        changed, entries, nbytes = total[place]
        level = scale.level(changed / entries if entries else 0.0)
        cells[place] = Cell(number, changed, entries, nbytes, level)
    return HeatMap(
        layers=axes.groups,
        modules=axes.modules,
        cells=tuple(tuple(cells.get((module, layer)) for layer in axes.layers) for module in axes.modules),
        scale=scale,
        each=_each(counted, order, scale) if len(diffs) > 1 and len(diffs) * len(order) <= MOST_NUMBERS else None,
    )


class _Axes:
    """Which modules and layers there are; names of tensors are looked at once."""

    def __init__(self, diffs: Iterable[DiffStats]) -> None:
        nbytes: dict[str, int] = {}
        for item in diffs:
            for tensor in item.tensors:
                nbytes[tensor.name] = nbytes.get(tensor.name, 0) + tensor.nbytes
        modules = _most({name: module_of(name) for name in nbytes}, nbytes, MOST_MODULES)
        layers = _most({name: layer_of(name) for name in nbytes}, nbytes, MOST_LAYERS)
        self._places = {name: (modules[name], layers[name]) for name in nbytes}
        self.layers = tuple(
            sorted(set(layers.values()), key=lambda key: (key == OTHERS, key != NO_LAYER, natural(key)))
        )
        firsts: dict[str, tuple[bool, int]] = {}
        for module, layer in self._places.values():
            firsts[module] = min(firsts.get(module, (True, len(layers))), (module == OTHERS, self.layers.index(layer)))
        self.modules = tuple(sorted(firsts, key=lambda module: (firsts[module], natural(module))))

    @cached_property
    def groups(self) -> tuple[LayerGroup, ...]:
        split = [key.rpartition(".") if key not in (NO_LAYER, OTHERS) else (key, "", "") for key in self.layers]
        return tuple(
            LayerGroup(name, tuple(number for _, _, number in parts if number))
            for name, parts in ((name, list(parts)) for name, parts in groupby(split, key=lambda part: part[0]))
        )

    def summed(self, tensors: Iterable[TensorStats]) -> dict[_Place, tuple[int, int, int]]:
        found: dict[_Place, tuple[int, int, int]] = {}
        for item in tensors:
            place = self._places[item.name]
            changed, entries, nbytes = found.get(place, (0, 0, 0))
            found[place] = (changed + item.changed, entries + item.entries, nbytes + item.nbytes)
        return found


def _most(keys: dict[str, str], nbytes: dict[str, int], most: int) -> dict[str, str]:
    """Of the keys of tensors those of most bytes; the others become one."""
    sums: dict[str, int] = {}
    for name, key in keys.items():
        sums[key] = sums.get(key, 0) + nbytes[name]
    if len(sums) <= most:
        return keys
    kept = set(sorted(sums, key=lambda key: (-sums[key], key))[: most - 1])
    return {name: key if key in kept else OTHERS for name, key in keys.items()}


def _each(
    counted: Sequence[dict[_Place, tuple[int, int, int]]], order: Sequence[_Place], scale: Scale
) -> dict[str, Any]:
    """Of each task its changed entries, cell by cell; of their entries, which most have alike, what differs once."""
    shapes: dict[tuple[int, ...], int] = {}
    tasks: list[list[Any]] = []
    for sums in counted:
        shape = tuple(sums.get(place, (0, 0, 0))[1] for place in order)
        tasks.append([shapes.setdefault(shape, len(shapes)), [sums.get(place, (0, 0, 0))[0] for place in order]])
    return {"entries": list(map(list, shapes)), "tasks": tasks, "low": scale.low, "high": scale.high}
