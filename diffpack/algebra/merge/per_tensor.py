"""Numbers that may differ from tensor to tensor: by a pattern of its name, or along the layers of a model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import isfinite
from typing import TypeGuard

import numpy as np

from diffpack.errors import UsageError
from diffpack.support.names import printable

Number = float | Sequence[float]
"""A number, or a gradient: numbers between which the layers of a model are interpolated, from the first to the last."""
Setting = Number | Mapping[str, Number]
"""A number for every tensor, or one for each pattern of names; the first pattern that fits counts."""

EVERY = "*"
_WILD = re.compile(r"[*?\[]")
_LAYER = re.compile(r"\.(\d+)\.")  # as mergekit finds the layers of an architecture it does not know


def matches(name: str, pattern: str) -> bool:
    """Whether a pattern fits a tensor's name: with *, ? or [ the whole of it, else a part, as mergekit's filters do."""
    return fnmatchcase(name, pattern) if _WILD.search(pattern) else pattern in name


def check_patterns(what: str, patterns: Iterable[str], names: Iterable[str]) -> None:
    """Raise `UsageError` for a pattern that fits none of the names."""
    known = sorted(names)
    for pattern in patterns:
        if pattern != EVERY and not any(matches(name, pattern) for name in known):
            some = ", ".join(printable(name) for name in known[:: max(1, len(known) // _SHOWN)][:_SHOWN])
            raise UsageError(
                f"{what}: no tensor is called {printable(pattern)}: patterns are compared with names such as "
                f"{some or '(there are none)'}"
            )


_SHOWN = 3  # names that show a user what patterns are compared with


class Layers:
    """The layers of a model, found in the names of its tensors: the first number that stands between dots."""

    def __init__(self, names: Iterable[str]) -> None:
        self._counts: dict[str, int] = {}
        for name in names:
            if found := _LAYER.search(name):
                before = name[: found.start()]
                self._counts[before] = max(self._counts.get(before, 0), int(found[1]) + 1)

    @property
    def counts(self) -> frozenset[int]:
        """How many layers there are, for each of the stacks of layers a model may have."""
        return frozenset(self._counts.values())

    def depth(self, name: str) -> float:
        """Where a tensor's layer lies, from 0 (the first) to 1 (the last, or the only one); 0 outside of all layers."""
        found = _LAYER.search(name)
        if found is None:
            return 0.0
        count = self._counts[name[: found.start()]]
        return int(found[1]) / (count - 1) if count > 1 else 1.0


@dataclass(frozen=True)
class PerTensor:
    """Patterns of names, each with its number or its gradient; the first that fits counts."""

    rules: tuple[tuple[str, tuple[float, ...]], ...]

    @classmethod
    def of(cls, what: str, setting: Setting) -> PerTensor:
        """Read what a user gave for `what`. Raises `UsageError` for what is no number."""
        given = setting if isinstance(setting, Mapping) else {EVERY: setting}
        if not given or "" in given:
            raise UsageError(f"{what}: a pattern of names is missing")
        return cls(tuple((pattern, _numbers(what, number)) for pattern, number in given.items()))

    @property
    def plain(self) -> float | None:
        """The number that every tensor has, if it is one."""
        (pattern, numbers), *others = self.rules
        return numbers[0] if pattern == EVERY and len(numbers) == 1 and not others else None

    @property
    def patterns(self) -> list[str]:
        """The patterns of names."""
        return [pattern for pattern, _ in self.rules]

    @property
    def numbers(self) -> list[float]:
        """All numbers, ends of gradients included."""
        return [number for _, numbers in self.rules for number in numbers]

    @property
    def needs_layers(self) -> bool:
        """Whether a number depends on a tensor's layer."""
        return any(len(numbers) > 1 for _, numbers in self.rules)

    def at(self, name: str, layers: Layers | None) -> float | None:
        """The number of a tensor; None if no pattern fits. `layers` is needed where `needs_layers`."""
        numbers = next((numbers for pattern, numbers in self.rules if matches(name, pattern)), None)
        if numbers is None or len(numbers) == 1:
            return None if numbers is None else numbers[0]
        assert layers is not None
        scaled = layers.depth(name) * (len(numbers) - 1)
        low = int(scaled)
        high = min(low + 1, len(numbers) - 1)
        return (1 - (scaled - low)) * numbers[low] + (scaled - low) * numbers[high]

    def __str__(self) -> str:
        said = {pattern: ",".join(f"{number:g}" for number in numbers) for pattern, numbers in self.rules}
        if self.patterns == [EVERY]:
            return said[EVERY]
        return " ".join(f"{pattern}:{numbers}" for pattern, numbers in said.items())


def is_number(value: object) -> TypeGuard[float]:
    """Whether a setting is one number, numpy's included."""
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _numbers(what: str, number: Number) -> tuple[float, ...]:
    several = list(number) if isinstance(number, Sequence | np.ndarray) else [number]
    found = tuple(float(item) for item in several if is_number(item) and isfinite(item))
    if not found or len(found) != len(several):
        raise UsageError(f"{what}: {number!r} is neither a number nor a list of numbers along the layers")
    return found
