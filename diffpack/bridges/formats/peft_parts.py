"""A LoRA adapter that is put together: the factors of changes, and what is saved as it is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from diffpack.bridges.formats.low_rank import Matrix, low_rank
from diffpack.bridges.formats.peft_base import is_embedding
from diffpack.bridges.formats.peft_keys import BASE_LAYER, PREFIX
from diffpack.bridges.formats.peft_pairs import Pair
from diffpack.bridges.formats.peft_turned import stored_turned
from diffpack.errors import UsageError
from diffpack.format.values import floats
from diffpack.result.result import Result
from diffpack.support.names import listed, printable
from diffpack.tensors.dtypes import DTYPES, MANTISSA_BITS, DType, Words, to_float
from diffpack.tensors.info import TensorInfo

_WEIGHT, _BIAS = ".weight", ".bias"
_F32 = "F32"


@dataclass(frozen=True)
class Missed:
    """What factors miss of a tensor's change: as a part of it, and how far off an entry of the result is at most."""

    name: str
    part: float
    most: float


@dataclass
class Parts:
    """Tensors by the names PEFT gives them, and what its settings say of the modules they are of.

    `ranks` are those of modules with factors, `alphas` what their product is multiplied by, times the rank; `saved`
    are modules that are whole; `turned` says that some weights are (in, out), `biases` that some biases are there.
    """

    result: Result
    tensors: dict[str, tuple[TensorInfo, Words]] = field(default_factory=dict)
    ranks: dict[str, int] = field(default_factory=dict)
    alphas: dict[str, float] = field(default_factory=dict)
    saved: list[str] = field(default_factory=list)
    turned: bool = False
    biases: bool = False

    def words(self, name: str) -> Words:
        """A tensor of the result."""
        info = self.result.tensors[name]
        words = np.empty(info.words, info.dtype.word)
        for start, block in self.result.blocks(name):
            words[start : start + block.size] = block
        return words

    def keep(self, name: str, key: str) -> None:
        """Take a tensor of the result as it is."""
        self.tensors[PREFIX + key] = self.result.tensors[name], self.words(name)

    def factorise(self, name: str, most: int, tolerance: float) -> Missed | None:
        """Take the factors of a weight's change; None if it does not change.

        Raises `UsageError` if factors of rank `most` miss more than `tolerance` of it.
        """
        info, after = self.result.tensors[name], self.words(name)
        before = self.result.base.words(self.result.view.own[name])
        change = (_wide(after, info) - _wide(before, info)).reshape(info.shape)
        size = float(np.linalg.norm(change))
        where = f"{self.result.diff.name}: the change of {printable(name)} ({info})"
        if not np.isfinite(size):
            raise UsageError(f"{where} is not finite")
        if not size:
            return None
        noise = _rounding(_wide(after, info), info.dtype) + 2 * _rounding(change, DTYPES[_F32])
        found = low_rank(change, noise, most)
        part = found.error / size
        if part > tolerance:
            why = (
                f"no more than what rounding to {info.dtype.name} took from it"
                if found.error <= noise
                else f"and {most} is the largest rank allowed"
            )
            raise UsageError(
                f"{where} is no product of thin factors: those of rank {found.rank} miss {part:.2g} of it, over the "
                f"tolerance of {tolerance:g} ({why}): the options rank and tolerance allow more, the format "
                "sparse-safetensors holds all of it"
            )
        left, right = (np.ascontiguousarray(side).view(DTYPES[_F32].word) for side in (found.left, found.right))
        self.take(name, Pair(DTYPES[_F32], left, right, 1.0))
        sums = floats.add(before, found.product().reshape(-1).astype(np.float32), info.dtype)
        return Missed(name, part, float(np.abs(_wide(sums, info) - _wide(after, info)).max()))

    def take(self, name: str, pair: Pair) -> None:
        """Take factors of a weight, by PEFT's names: B A is the change of a linear layer, its transpose that of others.

        Of a convolution's, A has the shape of its inputs and B dimensions of 1.
        """
        module, shape = name.removesuffix(_WEIGHT), self.result.tensors[name].shape
        embedding = is_embedding(name)
        turned = not embedding and stored_turned(module, self.result.tensors)
        first, second = (pair.left.T, pair.right.T) if embedding or turned else (pair.right, pair.left)
        ends = (".lora_embedding_A", ".lora_embedding_B") if embedding else (".lora_A.weight", ".lora_B.weight")
        shapes = (first.shape, second.shape)
        if len(shape) > 2:
            shapes = (pair.rank, *shape[1:]), (shape[0], pair.rank, *(1 for _ in shape[2:]))
        for end, factor, own in zip(ends, (first, second), shapes, strict=True):
            self.tensors[PREFIX + module + end] = TensorInfo(pair.dtype, own), np.ascontiguousarray(factor).reshape(-1)
        self.ranks[module], self.alphas[module] = pair.rank, pair.scale * pair.rank
        self.turned = self.turned or turned

    def keep_modules(self, names: Iterable[str], new: set[str]) -> None:
        """Take biases of layers as they are, and the modules that other tensors are of, whole.

        A module of new tensors is taken as far up as all is new. Raises `UsageError` if it holds a layer with factors.
        """
        everything = self.result.tensors
        for name in sorted(names, key=lambda name: (name.endswith(_BIAS), name)):
            module = name.rpartition(".")[0]
            if any(f"{module}.".startswith(f"{saved}.") for saved in self.saved):
                continue
            if name.endswith(_BIAS) and name not in new:
                self.biases = True
                self.keep(name, f"{module}.{BASE_LAYER}{_BIAS}" if module in self.ranks else name)
                continue
            while "." in module and all(other in new for other in _inside(module.rpartition(".")[0], everything)):
                module = module.rpartition(".")[0]
            held = [layer for layer in self.ranks if f"{layer}.".startswith(f"{module}.")]
            if held:
                raise UsageError(
                    f"{self.result.diff.name}: a LoRA adapter saves modules whole, but {printable(name)} stands beside "
                    f"layers with factors: {listed([printable(layer) for layer in held])} (the option others=leave "
                    "leaves out all that is no layer with factors)"
                )
            self.saved.append(module)
            for other in _inside(module, everything):
                self.keep(other, other)

    def with_prefix(self, prefix: str) -> Parts:
        """The same, with `prefix` in front of the names of modules that the base has.

        It is what a class with a head calls the model whose names the base has (`bert.`, `model.`).
        """
        known = {name[:at] for name in self.result.view.own for at, letter in enumerate(name) if letter == "."}

        def called(name: str) -> str:
            ends = [at for at, letter in enumerate(f"{name}.") if letter == "."]
            return prefix + name if any(name[:at] in known for at in ends) else name

        return replace(
            self,
            tensors={PREFIX + called(key.removeprefix(PREFIX)): stored for key, stored in self.tensors.items()},
            ranks={called(module): rank for module, rank in self.ranks.items()},
            alphas={called(module): alpha for module, alpha in self.alphas.items()},
            saved=[called(module) for module in self.saved],
        )


def _inside(module: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(f"{module}.")]


def _wide(words: Words, info: TensorInfo) -> Matrix:
    wide: Matrix = to_float(words, info.dtype).astype(np.float64)
    return wide


def _rounding(values: Matrix, dtype: DType) -> float:
    """How far rounding to a dtype may have moved values: half a step of each, in the Frobenius norm.

    Steps are those of float32 at least: factors are float32, and so is what is made of them.
    """
    bits = min(MANTISSA_BITS[dtype.name], MANTISSA_BITS[_F32])
    steps = np.where(values == 0, 0, np.exp2(np.frexp(values)[1] - 1.0 - bits))
    return float(np.linalg.norm(steps)) / 2
