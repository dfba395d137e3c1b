"""Numbers for a diff and a pattern of names, as `merge` takes them: `0.5`, `A.dpk=0.5`, `A.dpk:mlp=0.5`, `:mlp=0.5`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import click

Numbers = tuple[float, ...]
"""One number, or several that the layers lie between."""
Given = tuple[str, Numbers]
"""What stands before the last equals sign ("" for nothing), and the numbers after it."""
Setting = float | list[float] | dict[str, float | list[float]]

_EVERY = "*"


class PerTensorNumbers(click.types.StringParamType):
    """`[DIFF][:PATTERN]=N[,N...]`, or the numbers alone; `read` reads one of them."""

    name = "numbers"

    def __init__(self, read: Callable[[str], float] = float) -> None:
        self._read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Split at the last equals sign and read the numbers."""
        if isinstance(value, tuple):
            return value
        where, _, numbers = str(value).rpartition("=")
        try:
            return where, tuple(self._read(number) for number in numbers.split(","))
        except ValueError:
            self.fail(f"{value!r} does not end with a number, or with numbers for the layers (0.2,0.8)", param, ctx)


def place_of(said: str, diffs: Sequence[str]) -> int | None:
    """The place of the diff that is called so: by its path, or by its file's name if one alone has that."""
    for same in (_itself, os.path.basename):
        places = [at for at, diff in enumerate(diffs) if same(diff) == os.path.normpath(said)]
        if len(places) > 1:
            raise click.UsageError(f"{said}: {len(places)} of the diffs are called so")
        if places:
            return places[0]
    return None


def _itself(path: str) -> str:
    return os.path.normpath(path)


def per_diff(option: str, given: Sequence[Given], diffs: Sequence[str]) -> list[Setting | None]:
    """What `given` says of each diff: its own patterns, then those for all, then its own number, then that for all."""
    rules: dict[tuple[int | None, str], Numbers] = {}
    for where, numbers in given:
        place, pattern = _target(option, where, diffs)
        if (place, pattern) in rules:
            raise click.UsageError(f"{option}: {where or 'the number for all'} stands there twice")
        rules[place, pattern] = numbers
    return [_setting(at, rules) for at in range(len(diffs))]


def for_all(option: str, given: Sequence[Given]) -> Setting | None:
    """The same of a number that is not a diff's: patterns, then the number for all tensors."""
    patterns = [(where and f":{where.removeprefix(':')}", numbers) for where, numbers in given]
    return per_diff(option, patterns, [""])[0]


def _target(option: str, where: str, diffs: Sequence[str]) -> tuple[int | None, str]:
    """The diff (None: all) and the pattern that stand before a number."""
    if not where:
        return None, _EVERY
    cuts = [len(where), *(at for at, sign in enumerate(where) if sign == ":")]
    for cut in cuts:  # a path may have colons, and so may a pattern
        named, pattern = where[:cut], where[cut + 1 :]
        place = place_of(named, diffs) if named else None
        if (place is not None or not named) and (pattern or cut == len(where)):
            return place, pattern or _EVERY
    raise click.UsageError(f"{option}: {where} is none of the diffs; a pattern of tensor names begins with a colon")


def _setting(at: int, rules: dict[tuple[int | None, str], Numbers]) -> Setting | None:
    ordered = [key for key in rules if key[0] == at and key[1] != _EVERY]
    ordered += [key for key in rules if key[0] is None and key[1] != _EVERY]
    ordered += [key for key in ((at, _EVERY), (None, _EVERY)) if key in rules]
    found: dict[str, float | list[float]] = {}
    for key in ordered:
        found.setdefault(key[1], rules[key][0] if len(rules[key]) == 1 else list(rules[key]))
    if list(found) == [_EVERY]:
        return found[_EVERY]
    return found or None


def taken(given: Sequence[str], diffs: Sequence[str]) -> dict[str, int]:
    """`PATTERN=DIFF`, as patterns and places of diffs."""
    found: dict[str, int] = {}
    for item in given:
        cuts = [at for at, sign in enumerate(item) if sign == "="]
        places = [(item[:at], place) for at in cuts if (place := place_of(item[at + 1 :], diffs)) is not None]
        if not places or not places[0][0]:
            raise click.UsageError(f"--take: {item} does not end with =DIFF, one of {', '.join(diffs)}")
        pattern, place = places[0]
        if found.setdefault(pattern, place) != place:
            raise click.UsageError(f"--take: {pattern} is to be taken from several diffs")
    return found
