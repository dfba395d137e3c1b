"""What a merge method is, and what its user may set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from diffpack.algebra.delta import Delta
from diffpack.algebra.merge.combine import Combined, combine
from diffpack.errors import BaseNeededError
from diffpack.tensors.reference import Reference

RESCALES = ("expected", "norm", "none")
"""How values that a random method keeps are scaled: by 1 / chance (the papers), to the old L1 norm, not at all."""


@dataclass(frozen=True)
class Settings:
    """What holds for one tensor of one diff; None is the method's default. `weights` has a number for each diff.

    `density` is the fraction of the tensor's entries that is kept (0: the diff is left out there), `scale` multiplies
    the merged values, `t` is how far an interpolation goes from the first diff to the second.
    """

    weights: tuple[float, ...]
    density: float | None = None
    normalize: bool | None = None
    scale: float = 1.0
    seed: int = 0
    gamma: float = 0.01
    epsilon: float | None = None
    rescale: str = "expected"
    t: float | None = None


class Draw:
    """Random numbers for one tensor of one diff: the same for the same seed, name and place of the diff, everywhere.

    PCG64's raw output is fixed by its definition, unlike the distributions of numpy's generators.
    """

    def __init__(self, seed: int, diff: int, name: str) -> None:
        digest = blake3(f"{seed} {diff} {name}".encode("utf-8", "surrogatepass")).digest()
        self._bits = np.random.PCG64(int.from_bytes(digest[:16], "little"))

    def uniform(self, count: int) -> npt.NDArray[np.float64]:
        """Numbers in [0, 1), 53 bits each."""
        raw: npt.NDArray[np.uint64] = self._bits.random_raw(count)
        return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53


Prune = Callable[[Delta, Settings, Draw], Delta]
Select = Callable[[Sequence[Delta], Settings], tuple[list[Delta], list[float]]]
Between = Callable[[Sequence[Delta], Reference, float], Iterator[Combined]]


@dataclass(frozen=True)
class Method:
    """A merge method: each delta is pruned, then the values at each place become one.

    `elect` is how signs are elected (see `combine`), `normalize` the default, `random` whether pruning draws numbers,
    `options` the settings that it alone or few take, `select` what a method that looks at all deltas of a tensor at
    once does instead of pruning each (it also gives the weights), `between` what one does that goes from one tuned
    model to another and looks at their whole weights, `source` the paper. A method takes a density if it has `prune`
    or `select`.
    """

    name: str
    source: str
    prune: Prune | None = None
    elect: str | None = None
    normalize: bool = False
    random: bool = False
    options: tuple[str, ...] = ()
    select: Select | None = None
    between: Between | None = None

    def merge(
        self, name: str, deltas: Sequence[Delta], settings: Sequence[Settings], reference: Reference | None
    ) -> Iterator[Combined]:
        """Merge the deltas of one tensor, each with its settings.

        `reference` is what they are relative to. Raises `BaseNeededError` if the method needs it and it is None.
        """
        first = settings[0]
        if self.between is not None:
            if reference is None:
                raise BaseNeededError(f"{self.name} is between whole weights, not between changes: give the base")
            assert first.t is not None  # `Choices.check` asks for it
            return self.between(deltas, reference, first.t)
        kept, weights = self._prepared(name, deltas, settings)
        normalize = self.normalize if first.normalize is None else first.normalize
        return combine(kept, weights, elect=self.elect, normalize=normalize, scale=first.scale)

    def _prepared(
        self, name: str, deltas: Sequence[Delta], settings: Sequence[Settings]
    ) -> tuple[list[Delta], list[float]]:
        """What is left of each delta of a tensor, and its weight."""
        if self.select is not None:
            return self.select(deltas, settings[0])
        kept = [
            self._pruned(name, at, delta, own) for at, (delta, own) in enumerate(zip(deltas, settings, strict=True))
        ]
        return kept, list(settings[0].weights)

    def _pruned(self, name: str, at: int, delta: Delta, settings: Settings) -> Delta:
        if self.prune is None or settings.density in (None, 1):
            return delta
        if settings.density == 0:
            return delta.keep(np.zeros(delta.values.size, np.bool_))
        return self.prune(delta, settings, Draw(settings.seed, at, name))
