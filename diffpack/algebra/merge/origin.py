"""Whose configuration and tokenizer go with the merged model: those of the diff it takes its head from."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from diffpack.algebra.delta_source import Source
from diffpack.algebra.merge.structure import Structure


def candidates(sources: Sequence[Source], plan: Structure, unions: Collection[str]) -> list[int]:
    """The places of the diffs whose side files may fit the result, the best first; none if the base's do.

    Best is one that new or resized tensors are taken from, then any that tensors are taken from, then one that brings
    new or resized tensors, then one with the largest vocabulary; of several the first.
    """
    stored = [name for name in plan.stored if name not in unions]
    reshaped = [(name, at) for name in stored for at in _reshaping(name, sources)]
    own_taken = [at for name, at in reshaped if plan.taken.get(name) == at]
    brought = [at for name, at in reshaped if name not in plan.taken]
    grown = sorted(
        {at for name in unions for at in _reshaping(name, sources)},
        key=lambda at: -max(sources[at].infos(name)[0].shape[0] for name in unions if sources[at].brings(name)),
    )
    return list(dict.fromkeys([*own_taken, *plan.taken.values(), *brought, *grown]))


def _reshaping(name: str, sources: Sequence[Source]) -> list[int]:
    """The diffs that bring a new tensor, or give one another shape."""
    found = []
    for at, source in enumerate(sources):
        if source.stores(name):
            info, before = source.infos(name)
            if before is None or before.shape != info.shape:
                found.append(at)
    return found
