"""What an operation keeps of a diff: whole groups by copying their chunks, single records through their values.

Numbers that were chosen class by class (those on a grid, with or without low-rank factors beside them) cannot be coded
again: only copying keeps them. Through its values such a record is a float32 number for each word that changes, which
with factors is nearly every one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from diffpack.diff.diff import Diff
from diffpack.diff.entries import Entry
from diffpack.diff.group_decoder import Changes, GroupDecoder
from diffpack.diff.record import TensorDiff
from diffpack.format.manifest import Group
from diffpack.format.values.floats import F32
from diffpack.format.values.grid import GRID
from diffpack.format.values.summed import SUMMED
from diffpack.support.names import listed, printable

FACTORS = "factors"
"""What the recipe of a diff says under this word if it has low-rank factors: how large their ranks are."""


def whole_groups(diff: Diff, apart: Collection[str]) -> Iterator[GroupDecoder]:
    """The groups with numbers chosen class by class that can be kept whole: none of their records is in `apart`."""
    for decoder in diff.decoders:
        if decoder.value_coding.class_offsets and not any(name in apart for name in decoder.group.names):
            yield decoder


def kept_entry(diff: Diff, record: TensorDiff, name: str) -> Entry:
    """A record of a diff as it is, to be written under a name; numbers chosen class by class as float32 values."""
    digests = diff.digests(record.name)
    if record.value_coding.class_offsets:
        parts = tuple(_as_floats(record, part) for part in record.changes())
        return Entry(name, record.info, record.base, *digests, parts, F32, adds_zeros=True)
    return Entry(
        name, record.info, record.base, *digests, tuple(record.changes()), record.value_coding, record.scale,
        adds_zeros=not record.exact,
    )  # fmt: skip


def _as_floats(record: TensorDiff, part: Changes) -> Changes:
    """The float32 values that numbers stand for; words without one stay without."""
    values = record.value_coding.differences(part.numbers, record.scale)
    if not values.all():
        part = part.nonzero()
        values = record.value_coding.differences(part.numbers, record.scale)
    return replace(part, numbers=F32.numbers(values))


def kept_recipe(recipe: Mapping[str, str], groups: Sequence[Group]) -> dict[str, str]:
    """The recipe of a diff whose records are these now: values on a grid, and factors, may be no more."""
    said = dict(recipe)
    if not any(group.factors is not None for group in groups):
        said.pop(FACTORS, None)
    codings = {group.value_coding_id for group in groups}
    if said.get("values") in (GRID.id, SUMMED.id) and GRID.id not in codings and F32.id in codings:
        said["values"] = F32.id
    return said


def on_factors(diff: Diff, names: Iterable[str], why: str) -> list[str]:
    """The remark for people on which of a diff's records lose their low-rank factors, kept through their values."""
    lost = [printable(name) for name in names if diff[name].value_coding is SUMMED]
    return [f"low-rank factors become float32 values, since {why}: {listed(lost)}"] if lost else []
