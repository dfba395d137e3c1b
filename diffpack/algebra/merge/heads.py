"""Tensors that are a task's own: new ones, resized ones, classifiers. Those of different tasks are not merged unasked.

A number has a meaning where the base gave it one. What the base lacks, each diff made for itself: the third row of one
classifier is another class than the third row of the next, and their average is neither.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from diffpack.algebra.delta_source import Source
from diffpack.algebra.merge.records import are_one
from diffpack.algebra.merge.structure import Wishes
from diffpack.errors import UsageError
from diffpack.support.names import listed, printable
from diffpack.tensors.info import TensorInfo

Labels = tuple[str, ...] | None


@dataclass(frozen=True)
class Heads:
    """The tensors that are a task's own: `same` are bit for bit the same in all diffs that bring them, the others are
    `averaged`, since the user said so or the diffs' labels have the same names.
    """  # noqa: D205 - one sentence

    same: frozenset[str]
    averaged: frozenset[str]


def find_heads(
    names: Sequence[str], sources: Sequence[Source], labels: Sequence[Labels], wishes: Wishes, unions: Collection[str]
) -> Heads:
    """Find the tensors among `names` that are a task's own and that several diffs bring.

    `labels` has for each diff what its labels are called, `unions` the vocabularies, which are no heads. Raises
    `UsageError` for those that are not known to be of one task, and of which the user says nothing.
    """
    same, averaged, refused = set(), set(), {}
    unequal: dict[str, str] = {}
    for name in names:
        bringing = [at for at, source in enumerate(sources) if source.brings(name)]
        infos = [sources[at].infos(name) for at in bringing]
        if len(bringing) < 2 or name in unions:
            continue
        if len(set(infos)) > 1:
            unequal[name] = " and ".join(sorted({str(info) for info, _ in infos}))
        if len(set(infos)) > 1 or not infos[0][0].dtype.arithmetic:
            continue
        told = [labels[at] for at in bringing]
        why = _own(name, infos, told)
        if not why:
            continue
        if are_one(name, [sources[at] for at in bringing]):
            same.add(name)
        elif wishes.mixes(name) or (None not in told and len(set(told)) == 1):
            averaged.add(name)
        else:
            refused[name] = f"{printable(name)} ({why})"
    if unequal:
        first = min(unequal)
        more = f" (and {len(unequal) - 1} more such tensors)" if len(unequal) > 1 else ""
        raise UsageError(
            f"{printable(first)}: the diffs make it {unequal[first]}, which cannot be merged{more}: "
            f"{way_out(sorted(unequal), sources)}"
        )
    if refused:
        raise UsageError(
            f"{listed([refused[name] for name in sorted(refused)])}: each diff brings its own, and those of different "
            f"tasks are not merged unasked: {way_out(sorted(refused), sources)}, mix (--mix) merges them all the same"
        )
    return Heads(frozenset(same), frozenset(averaged))


def way_out(names: Sequence[str], sources: Sequence[Source]) -> str:
    """What a user may do about tensors that are not merged."""
    place = next((at for at, source in enumerate(sources) if source.stores(names[0])), 0)
    return (
        f"take (--take '{_pattern(names, sources)}={sources[place].diff.name}', or its place: {place}) takes one "
        "diff's and the configuration with it, exclude (--exclude) leaves what the base has"
    )


def _pattern(names: Sequence[str], sources: Sequence[Source]) -> str:
    """A pattern that fits these tensors and no other that a diff stores: of the module they are in; else the first."""
    module = names[0][: names[0].rfind(".") + 1]
    stored = {name for source in sources for name in source.stored}
    inside = {name for name in stored if name.startswith(module)}
    return f"{printable(module)}*" if module and len(names) > 1 and inside == set(names) else printable(names[0])


def _own(name: str, infos: Sequence[tuple[TensorInfo, TensorInfo | None]], labels: Sequence[Labels]) -> str:
    """Why a tensor is a task's own; nothing if it is not."""
    shapes = [info.shape for info, _ in infos]
    if any(before is None for _, before in infos):
        return "new in the result"
    if any(before is not None and before.shape != info.shape for info, before in infos):
        return f"resized to {' and '.join(sorted({str(list(shape)) for shape in shapes}))}"
    known = {own for own in labels if own is not None}
    if len(known) > 1 and all(is_label_row(name, info, own) for (info, _), own in zip(infos, labels, strict=True)):
        return f"the labels are {' and '.join(sorted(_spelt(own) for own in known))}"
    return ""


def is_label_row(name: str, info: TensorInfo, labels: Labels) -> bool:
    """Whether a tensor has a row, or an entry, for each label; embeddings of as many types have not."""
    counted = labels is None or (info.shape and info.shape[0] == len(labels))
    return bool(counted) and len(info.shape) in (1, 2) and "emb" not in name.lower()


def _spelt(labels: Sequence[str]) -> str:
    return "/".join(printable(name) for name in labels)
