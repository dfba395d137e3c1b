"""Whose configuration and tokenizer go with the merged model: those of the diff it takes its head from."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from diffpack.algebra.delta_source import Source
from diffpack.algebra.merge.structure import Structure
from diffpack.diff.diff import Diff
from diffpack.support.names import listed


def files_from(sources: Sequence[Source], plan: Structure, unions: Collection[str], notes: list[str]) -> Diff | None:
    """The diff whose side files fit the result best; None if the base's do. `notes` grow: whose, and what they lack.

    Best is one that new or resized tensors are taken from, then any that tensors are taken from, then one that brings
    new or resized tensors, then one with the largest vocabulary; of several the first.
    """
    heads = list(dict.fromkeys(_heads(sources, plan, unions)))
    grown = _by_rows(sources, unions)
    known = [at for at in [*heads, *grown[:1]] if sources[at].diff.manifest.files]
    if not known:
        return None
    chosen = sources[known[0]].diff
    notes.append(f"config and other side files are those of {chosen.name}, which heads or new rows come from")
    if others := [sources[at].diff.name for at in heads if at in known[1:]]:
        notes.append(f"new, resized or taken tensors come from {listed(others)}, too, whose side files are left out")
    if any(_rows(sources[known[0]], name) < _rows(sources[grown[0]], name) for name in unions):
        rows = max(_rows(sources[grown[0]], name) for name in unions)
        notes.append(
            f"the vocabulary has {rows} rows, the last from {sources[grown[0]].diff.name}: {chosen.name}'s config and "
            "tokenizer know fewer"
        )
    return chosen


def _heads(sources: Sequence[Source], plan: Structure, unions: Collection[str]) -> Iterator[int]:
    """The diffs that heads may come from, the best first; some more than once."""
    stored = [name for name in plan.stored if name not in unions]
    reshaped = [(name, at) for name in stored for at in _reshaping(name, sources)]
    yield from (at for name, at in reshaped if plan.taken.get(name) == at)
    yield from plan.taken.values()
    yield from (at for name, at in reshaped if name not in plan.taken)


def _by_rows(sources: Sequence[Source], unions: Collection[str]) -> list[int]:
    """The diffs that give vocabularies new rows, the one with most rows first."""
    grown = sorted({at for name in unions for at in _reshaping(name, sources)})
    return sorted(grown, key=lambda at: -max(_rows(sources[at], name) for name in unions))


def _rows(source: Source, name: str) -> int:
    return source.infos(name)[0].shape[0] if source.brings(name) else 0


def _reshaping(name: str, sources: Sequence[Source]) -> list[int]:
    """The diffs that bring a new tensor, or give one another shape."""
    found = []
    for at, source in enumerate(sources):
        if source.stores(name):
            info, before = source.infos(name)
            if before is None or before.shape != info.shape:
                found.append(at)
    return found
