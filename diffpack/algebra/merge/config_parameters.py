"""The parameters in mergekit's configuration files: for a model or for all, by filters, as gradients over layers."""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping, Sequence
from typing import Any

from diffpack.algebra.merge.per_tensor import EVERY, Number, Setting
from diffpack.errors import UsageError
from diffpack.support.names import printable

_OF_A_MODEL = ("weight", "density", "gamma", "epsilon")
_FLAGS = ("normalize", "rescale", "int8_mask")
_OF_ALL = ("lambda", "t", "select_topk")
_WILD = re.compile(r"[*?\[]")
Parameters = Mapping[str, Any]


class Scopes:
    """The parameters of each model, and the scopes that hold for all of them, the nearest first.

    `known` are those the method has; others of mergekit's are noted and mean nothing, as they do there. Raises
    `UsageError` for words that are none of its parameters.
    """

    def __init__(self, method: str, known: Sequence[str], own: Sequence[Any], shared: Sequence[Any]) -> None:
        self.notes: list[str] = []
        self._known = known
        self._own = [_parameters(item) for item in own]
        self._shared = [_parameters(item) for item in shared]
        for scope in [*self._own, *self._shared]:
            for name in scope:
                if name not in (*_OF_A_MODEL, *_FLAGS, *_OF_ALL):
                    raise UsageError(f"parameters: {printable(str(name))}: not supported in a merge of diffs")
                note = f"parameters: {name} means nothing to {method}, here or in mergekit"
                if name not in known and note not in self.notes:
                    self.notes.append(note)
        for scope in self._own:
            if wrong := [name for name in scope if name not in _OF_A_MODEL]:
                raise UsageError(f"parameters: {wrong[0]} is for the whole merge, not for one of the models")

    def of(self, name: str, model: int | None) -> Setting | None:
        """A number for a model (by its place; None: for all): its own filters first, then those for all."""
        if name not in self._known:
            return None
        scopes = self._shared if model is None else [self._own[model], *self._shared]
        rules: dict[str, Number] = {}
        for scope in scopes:
            for pattern, number in _rules(name, scope.get(name)):
                if EVERY not in rules:  # what comes after it is never reached
                    rules.setdefault(pattern, number)
        if list(rules) == [EVERY] and isinstance(rules[EVERY], float):
            return rules[EVERY]
        return rules or None

    def needed(self, name: str) -> Setting:
        """The same for all models, of a parameter that the method cannot do without."""
        found = self.of(name, None)
        if found is None:
            raise UsageError(f"parameters: {name} is missing")
        return found

    def flag(self, name: str) -> bool | None:
        """Whether something is to be done; None if nothing is said of it, or the method has no such parameter."""
        if name not in self._known:
            return None
        for scope in self._shared:
            if (said := scope.get(name)) is not None:
                if not isinstance(said, bool):
                    raise UsageError(f"parameters: {name} is true or false for all tensors, not {said!r}")
                return said
        return None


def _parameters(said: Any) -> Parameters:
    if said is None:
        return {}
    if not isinstance(said, Mapping):
        raise UsageError(f"parameters: {said!r} is not a mapping of names to values")
    return said


def _rules(name: str, said: Any) -> list[tuple[str, Number]]:
    """A value, a gradient, or filters with a value or gradient each, as patterns in the order they are tried."""
    if said is None:
        return []
    if isinstance(said, Mapping):
        return [_filtered(name, said)]
    if isinstance(said, list) and any(isinstance(item, Mapping) for item in said):
        return [_filtered(name, item) for item in said]
    return [(EVERY, _number(name, said))] if said != [] else []


def _filtered(name: str, said: Any) -> tuple[str, Number]:
    if not isinstance(said, Mapping) or "value" not in said or not set(said) <= {"filter", "value"}:
        raise UsageError(f"parameters: {name}: {said!r} is not a filter with a value")
    wanted = said.get("filter")
    if wanted is not None and (not isinstance(wanted, str) or not wanted):
        raise UsageError(f"parameters: {name}: the filter {wanted!r} is not a part of tensors' names")
    return _pattern(wanted), _number(name, said["value"])


def _pattern(wanted: str | None) -> str:
    """The pattern for a filter, which mergekit looks for in names letter by letter; `*` and none are every tensor's."""
    if wanted in (None, EVERY):
        return EVERY
    assert wanted is not None  # the line above
    return f"*{glob.escape(wanted)}*" if _WILD.search(wanted) else wanted


def _number(name: str, said: Any) -> Number:
    if isinstance(said, list):
        return [_scalar(name, item) for item in said]
    return _scalar(name, said)


def _scalar(name: str, said: Any) -> float:
    """One number; YAML reads 1e-3 as a word, which mergekit takes for a number, too."""
    try:
        if not isinstance(said, int | float | str) or isinstance(said, bool):
            raise ValueError
        return float(said)
    except ValueError:
        raise UsageError(f"parameters: {name}: {said!r} is not a number") from None
