"""The labels of a task: which there are, and whether they are labels at all."""

from __future__ import annotations

import math
from collections.abc import Collection

from diffpack.errors import UsageError
from diffpack.support.names import listed
from diffpack.train.texts import Examples

MOST_NUMBERS = 20
"""Different numbers that may be labels: ratings and grades have no more. Beyond, fractions are measurements, and so are
integers of which each text has nearly its own."""
LARGEST_SHARE = 0.5
"""Different numbers a text, from which on the numbers are measurements: a label has to come twice to be learnt."""
_FEW = 2
"""Different numbers that are labels in any file, be it of two lines."""


def label_names(train: Examples, dev: Examples) -> tuple[str, ...]:
    """The labels in sorted order.

    Raises `UsageError` if train's are the numbers of a regression, if dev has some that train lacks, if two differ only
    in the spaces around them, or if there is only one.
    """
    names = tuple(sorted(set(train.labels)))
    _require_classes(train, names)
    first = {label: line for line, label in reversed(list(enumerate(dev.labels, 2)))}  # line 1 names the columns
    unknown = [f"{label!r} (line {first[label]})" for label in sorted(set(first) - set(names))]
    if unknown:
        raise UsageError(f"{dev.source}: labels that {train.source} does not have: {listed(unknown)}")
    plain = {name.strip(): name for name in names}
    for name in names:
        if plain[name.strip()] != name:
            raise UsageError(
                f"{train.source}: the labels {name!r} and {plain[name.strip()]!r} differ only in spaces; keep one"
            )
    if len(names) < 2:
        raise UsageError(f"{train.source}: all texts have the label {names[0]!r}; there is nothing to learn")
    return names


def _require_classes(train: Examples, names: Collection[str]) -> None:
    """Raise `UsageError` if the labels are numbers of which there are too many to be names.

    All are finite numbers, and they are either fractions (at least one) of which there are more than `MOST_NUMBERS`, or
    more than two and more than `LARGEST_SHARE` of the texts; or integers of which there are more than both bounds.
    """
    numbers = [number for name in names if (number := _number(name)) is not None]
    if len(numbers) < len(names):
        return
    many, shared = len(names) > MOST_NUMBERS, len(names) > max(_FEW, LARGEST_SHARE * len(train))
    fractions = any(not number.is_integer() for number in numbers)
    if (many or shared) if fractions else (many and shared):
        example = next((name for name in names if not float(name).is_integer()), next(iter(names)))
        raise UsageError(
            f"{train.source}: its {len(train)} texts have {len(names)} different numbers for labels ({example}, ...), "
            "as for a regression; only classification is supported: sort the numbers into a few ranges with names (or, "
            "if they are names, put a letter before each)"
        )


def _number(name: str) -> float | None:
    try:
        number = float(name)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
