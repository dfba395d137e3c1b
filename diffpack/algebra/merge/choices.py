"""What the user of a merge chose: numbers for each diff and tensor, and whether the method has a use for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from diffpack.algebra.merge.method import RESCALES, Method, Settings
from diffpack.algebra.merge.per_tensor import Layers, PerTensor, Setting, is_number
from diffpack.errors import UsageError

PerDiff = Setting | Sequence[Setting | None]
"""The same setting for every diff, or one for each."""
Each = tuple[PerTensor | None, ...]


@dataclass(frozen=True)
class Choices:
    """A setting for each diff (`weights`, `densities`, `gammas`, `epsilons`) or for all; None is the method's default.

    `weighed` says whether the user gave weights. Made by `choose`.
    """

    weights: Each
    weighed: bool
    densities: Each
    gammas: Each
    epsilons: Each
    normalize: bool | None
    scale: PerTensor
    t: PerTensor | None
    seed: int
    rescale: str

    def of(self, name: str, layers: Layers | None) -> tuple[Settings, ...]:
        """What holds for one tensor, for each of the diffs."""
        t = None if self.t is None else self.t.at(name, layers)
        if self.t is not None and t is None:
            raise UsageError(f"t: no pattern fits {name}: say what the rest has with '*'")
        weights = tuple(_at(item, name, layers, 1.0) for item in self.weights)
        if t is not None:  # an interpolation is between two
            weights = (1 - t, t)
        scale = _at(self.scale, name, layers, 1.0)
        return tuple(
            Settings(
                weights,
                None if density is None else density.at(name, layers),
                self.normalize,
                scale,
                self.seed,
                _at(gamma, name, layers, Settings.gamma),
                None if epsilon is None else epsilon.at(name, layers),
                self.rescale,
                t,
            )
            for density, gamma, epsilon in zip(self.densities, self.gammas, self.epsilons, strict=True)
        )

    @property
    def plain(self) -> Settings | None:
        """What holds for every tensor of the only diff there is; None for several, or if it differs."""
        (weight, *others), density = self.weights, self.densities[0]
        settled = [item for item in (weight, density, self.scale) if item is not None]
        if others or self.t is not None or any(item.plain is None for item in settled):
            return None
        return self.of("", None)[0]

    def per_tensor(self) -> Iterator[tuple[str, PerTensor]]:
        """All settings that may differ between tensors, with what they are called."""
        each = {"weight": self.weights, "density": self.densities, "gamma": self.gammas, "epsilon": self.epsilons}
        for what, items in (each | {"scale": (self.scale,), "t": (self.t,)}).items():
            for item in items:
                if item is not None:
                    yield what, item

    def needs_layers(self) -> bool:
        """Whether a number depends on a tensor's layer."""
        return any(item.needs_layers for _, item in self.per_tensor())

    def check(self, method: Method, diffs: int) -> None:
        """Raise `UsageError` for settings that mean nothing to the method."""
        pruned = any(density is not None for density in self.densities)
        if pruned and method.prune is None and method.select is None:
            raise UsageError(f"{method.name} keeps every change; a density says nothing to it")
        for option in self._given():
            if option not in method.options:
                raise UsageError(f"{method.name} takes no {option}")
            if option != "t" and method.select is None and not pruned:
                raise UsageError(f"{option} says how {method.name} leaves changes out: give a density as well")
        if method.select is not None and len(set(self.weights)) > 1:
            raise UsageError(f"{method.name} finds its weights by itself")
        if method.between is not None:
            self._check_between(method, diffs)

    def _check_between(self, method: Method, diffs: int) -> None:
        if self.t is None:
            raise UsageError(f"{method.name} needs t: how far to go from the first diff (0) to the second (1)")
        if diffs != 2:
            raise UsageError(f"{method.name} goes from one diff to another: it takes two, not {diffs}")
        chosen = {"weights": self.weighed, "normalize": self.normalize is not None, "scale": self.scale.plain != 1}
        for what, given in chosen.items():
            if given:
                raise UsageError(f"{method.name} takes no {what}: t says how much of each diff counts")

    def _given(self) -> Iterator[str]:
        """The settings that few methods take, where they are not what they are without a word of the user."""
        if self.seed != Settings.seed:
            yield "seed"
        if any(gamma is not None and gamma.plain != Settings.gamma for gamma in self.gammas):
            yield "gamma"
        if any(epsilon is not None for epsilon in self.epsilons):
            yield "epsilon"
        if self.rescale != Settings.rescale:
            yield "rescale"
        if self.t is not None:
            yield "t"


def choose(
    count: int,
    *,
    weights: Sequence[Setting] | None,
    density: PerDiff | None,
    normalize: bool | None,
    scale: Setting,
    t: Setting | None,
    seed: int,
    gamma: PerDiff,
    epsilon: PerDiff | None,
    rescale: str,
) -> Choices:
    """Read the settings of a merge of `count` diffs. Raises `UsageError` for numbers that mean nothing."""
    if rescale not in RESCALES:
        raise UsageError(f"rescale is one of {', '.join(RESCALES)}, not {rescale!r}")
    densities = _each("densities", density, count)
    for item in densities:
        # 0 leaves a diff out; said of every tensor it is a slip
        if item is not None and (not all(0 <= number <= 1 for number in item.numbers) or item.plain == 0):
            raise UsageError(f"a density is above 0 and at most 1, not {item}")
    gammas = _each("gammas", gamma, count)
    for item in gammas:
        if item is not None and not all(0 <= number < 1 for number in item.numbers):
            raise UsageError(f"gamma is a fraction of the entries, at least 0 and below 1, not {item}")
    along = None if t is None else PerTensor.of("t", t)
    if along is not None and not all(0 <= number <= 1 for number in along.numbers):
        raise UsageError(f"t is between 0 (the first diff) and 1 (the second), not {along}")
    return Choices(
        _each("weights", [1.0] * count if weights is None else list(weights), count),
        weights is not None,
        densities,
        gammas,
        _each("epsilons", epsilon, count),
        normalize,
        PerTensor.of("scale", scale),
        along,
        seed,
        rescale,
    )


def _each(what: str, setting: PerDiff | None, count: int) -> Each:
    """One setting for each diff."""
    if setting is None or is_number(setting) or isinstance(setting, Mapping):
        return (None if setting is None else PerTensor.of(what, setting),) * count
    each = cast("Sequence[Setting | None]", setting)
    if isinstance(each, str) or len(each) != count:
        said = repr(each) if isinstance(each, str) else len(each)
        raise UsageError(f"{said} {what} for {count} diffs: give one for each")
    return tuple(None if item is None else PerTensor.of(what, item) for item in each)


def _at(item: PerTensor | None, name: str, layers: Layers | None, default: float) -> float:
    found = None if item is None else item.at(name, layers)
    return default if found is None else found
