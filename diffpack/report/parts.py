"""Where a diff's changes and bytes are in the model: summed by layer, by module, by dtype."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from diffpack.diff.stats import TensorStats
from diffpack.errors import UsageError
from diffpack.support.names import natural

_LAYER = re.compile(r"(?:^|\.)(\d+)(?=\.|$)")
"""The first number that stands between dots is a layer's, as in merges (`per_tensor`)."""
_PARAMETERS = frozenset({"weight", "bias", "gamma", "beta"})
"""Last parts of names that tell the parameter, not the module."""
NO_LAYER = "(no layer)"


@dataclass(frozen=True)
class Part:
    """Records that share a layer, module or dtype: changes, entries and bytes of all of them together."""

    key: str
    records: int
    changed: int
    entries: int
    nbytes: int

    @property
    def density(self) -> float:
        """Changed entries / entries of the records."""
        return self.changed / self.entries if self.entries else 0.0


def layer_of(name: str) -> str:
    """The layer of a tensor: its name up to the first number between dots; without one `NO_LAYER`."""
    found = _LAYER.search(name)
    return NO_LAYER if found is None else name[: found.end()]


def module_of(name: str) -> str:
    """What a tensor is in its layer: its name after the layer, without its own parameter's name.

    `encoder.layer.3.attention.self.query.weight` is of `attention.self.query`, and so are those of other layers;
    further numbers (of experts) read `*`.
    """
    found = _LAYER.search(name)
    rest = name if found is None else name[found.end() :].removeprefix(".")
    *path, last = rest.split(".")
    kept = path if last in _PARAMETERS else [*path, last]
    return ".".join("*" if part.isdecimal() else part for part in kept) or rest or name


BY: Mapping[str, Callable[[TensorStats], str]] = {
    "layer": lambda item: layer_of(item.name),
    "module": lambda item: module_of(item.name),
    "dtype": lambda item: item.dtype,
}
"""What tensors can be summed by."""


def parts_by(by: str, tensors: Iterable[TensorStats]) -> tuple[Part, ...]:
    """Sum tensors by a key of `BY`, in natural order of the keys (layer 2 before layer 10). Raises `UsageError`."""
    if by not in BY:
        raise UsageError(f"tensors are summed by {', '.join(BY)}, not by {by!r}")
    groups: dict[str, list[TensorStats]] = {}
    for item in tensors:
        groups.setdefault(BY[by](item), []).append(item)
    return tuple(
        Part(
            key,
            len(items),
            sum(item.changed for item in items),
            sum(item.entries for item in items),
            sum(item.nbytes for item in items),
        )
        for key, items in sorted(groups.items(), key=lambda pair: natural(pair[0]))
    )
