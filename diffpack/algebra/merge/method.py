"""What a merge method is, and what its user may set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from diffpack.algebra.delta import Delta
from diffpack.errors import UsageError

RESCALES = ("expected", "norm", "none")
"""How values that a random method keeps are scaled: by 1 / chance (the papers), to the old L1 norm, not at all."""


@dataclass(frozen=True)
class Settings:
    """What the user chose; None is the method's default."""

    weights: tuple[float, ...]
    density: float | None = None
    normalize: bool | None = None
    scale: float = 1.0
    seed: int = 0
    gamma: float = 0.01
    epsilon: float | None = None
    rescale: str = "expected"

    def __post_init__(self) -> None:
        if not np.isfinite([*self.weights, self.scale]).all():
            raise UsageError("weights and scale are numbers, not NaN or infinite")
        if self.density is not None and not 0 < self.density <= 1:
            raise UsageError(f"a density is above 0 and at most 1, not {self.density}")
        if not 0 <= self.gamma < 1:
            raise UsageError(f"gamma is a fraction of the entries, at least 0 and below 1, not {self.gamma}")
        if self.rescale not in RESCALES:
            raise UsageError(f"rescale is one of {', '.join(RESCALES)}, not {self.rescale!r}")


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


_OPTIONS = ("seed", "gamma", "epsilon", "rescale")
"""Settings that few methods take."""
Prune = Callable[[Delta, Settings, Draw], Delta]
Select = Callable[[Sequence[Delta], Settings], tuple[list[Delta], list[float]]]


@dataclass(frozen=True)
class Method:
    """A merge method: each delta is pruned, then the values at each place become one.

    `elect` is how signs are elected (see `combine`), `normalize` the default, `random` whether pruning draws numbers,
    `options` the settings that it alone or few take, `select` what a method that looks at all deltas of a tensor at
    once does instead of pruning each (it also gives the weights), `source` the paper. A method takes a density if it
    has `prune` or `select`.
    """

    name: str
    source: str
    prune: Prune | None = None
    elect: str | None = None
    normalize: bool = False
    random: bool = False
    options: tuple[str, ...] = ()
    select: Select | None = None

    def check(self, settings: Settings) -> None:
        """Raise `UsageError` for settings that mean nothing to the method."""
        if settings.density is not None and self.prune is None and self.select is None:
            raise UsageError(f"{self.name} keeps every change; a density says nothing to it")
        for option in _OPTIONS:
            if getattr(settings, option) == getattr(Settings, option):
                continue
            if option not in self.options:
                raise UsageError(f"{self.name} takes no {option}")
            if settings.density is None:
                raise UsageError(f"{option} says how {self.name} leaves changes out: give a density as well")
        if self.select is not None and len(set(settings.weights)) > 1:
            raise UsageError(f"{self.name} finds its weights by itself")

    def prepare(self, name: str, deltas: Sequence[Delta], settings: Settings) -> tuple[list[Delta], list[float]]:
        """What is left of each delta of a tensor, and its weight."""
        if self.select is not None:
            return self.select(deltas, settings)
        kept = list(deltas)
        if self.prune is not None and settings.density not in (None, 1):
            kept = [self.prune(delta, settings, Draw(settings.seed, at, name)) for at, delta in enumerate(deltas)]
        return kept, list(settings.weights)
