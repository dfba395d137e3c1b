"""DiffPruner: diff pruning as published (Guo, Rush, Kim, ACL 2021, arXiv 2012.07463), its first stage.

The parameters are theta = pretrained + z * w: `w` is the diff, z its hard-concrete gates with parameters `alpha`;
structured, z is the product of an entry's gate and its tensor's. Minimised is the task's loss plus `penalty` times
the expected number of open gates. Projection to a density and the stage with a fixed mask follow in
`diffpack.train.methods.diff_pruning`.

Gradients are taken by the chain rule as each tensor's arrives, so the loop costs one ordinary backward pass; a
test compares them with autograd's.

::

    pruner = DiffPruner(model, names)
    for batch in batches:
        pruner.sample()                    # theta = pretrained + z * w with fresh gates
        model(**batch).loss.backward()
        pruner.step()
    pruner.settle()                        # one last sample
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from diffpack.errors import UsageError
from diffpack.train.strings import listed_strings
from diffpack.train.tuners.hard_concrete import open_probability, sample, slope
from diffpack.train.tuners.optimise import adamw, clip_and_step
from diffpack.train.tuners.slot import words
from diffpack.train.tuners.untouched import digest


@dataclass(frozen=True)
class PruningSettings:
    """The published defaults. [P]: the paper; [C]: the paper's own code, where the paper is silent or differs."""

    penalty: float | None = None
    """lambda. [P] 1.25e-7 for BERT-large, whose pool has 335 M entries: None takes 42 / entries of the pool."""
    alpha_init: float = 5.0
    """[P] appendix: nearly all gates start open."""
    gate_lr: float = 0.1
    """[C] the gates' learning rate, constant, AdamW."""
    lr: float = 1e-5
    """[P] the diff's learning rate, linear decay, no warm-up."""
    eps: float = 1e-8
    """[C] Adam's epsilon."""
    clip: float = 1.0
    """[C] on the gradients of w and of alpha separately."""
    epochs: int = 3
    """[P]"""
    batch_size: int = 8
    """[P]"""
    fixed_lr: float = 5e-5
    """[P] learning rate of the stage with a fixed mask."""
    fixed_epochs: int = 3
    """[P] (5 on MRPC, STS-B, RTE)."""
    structured_sum: bool = False
    """False: the penalty of the two gates is the product of their probabilities [P]; True: their sum [C]."""


PENALTY_TIMES_POOL = 42.0
"""1.25e-7 x 335 M: lambda times the number of entries, so that models of other sizes feel the same pull."""
BLOCK = 1 << 15
"""Entries worked on at a time: a dozen passes over a whole tensor would each fetch it from memory."""


@dataclass
class Gated:
    """One tensor of the pool: its pretrained entries, diff, gates, and what the last sample left.

    `seen` is the parameter's count of writes after that, and its first entry of each block: by them it is noticed
    that something else has written the tensor since.
    """

    parameter: nn.Parameter
    pretrained: Tensor
    diff: nn.Parameter
    alpha: nn.Parameter
    group: nn.Parameter | None
    gate: Tensor
    group_gate: Tensor
    seen: tuple[int, Tensor]

    def look(self) -> tuple[int, Tensor]:
        """What `seen` is to be, as it is now."""
        return self.parameter._version, self.parameter.detach().view(-1)[::BLOCK].clone()

    def require_unwritten(self, name: str) -> None:
        """Raise `UsageError` if something else has written the tensor."""
        (count, entries), (now, there) = self.seen, self.look()
        if now != count or not torch.equal(words(there), words(entries)):
            raise UsageError(
                f"{name!r} was written by something else since the last sample, which diff and gates cannot take over: "
                "load a pruner's state (load_state_dict) after the weights, or make the pruner after them"
            )

    def blocks(self, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Cut tensors of the parameter's shape into the same short flat pieces, which stay in the cache."""
        return zip(*(value.detach().view(-1).split(BLOCK) for value in tensors), strict=True)


class DiffPruner:
    """Holds diff and gates of the named parameters (the pool) and trains them; other parameters are the caller's.

    The model's parameters serve as theta: `sample` writes them, hooks take their gradients. `lr` and its schedule
    belong to `optimisers[0]`, the diff's; the gates' is `optimisers[1]`. Weights that are loaded into the model
    meanwhile are refused at the next sample, which would overwrite them. Raises `UsageError` for a pool in half
    precision, in which the sums over gates overflow, and for a name the model lacks.
    """

    def __init__(
        self,
        model: nn.Module,
        names: Iterable[str],
        settings: PruningSettings | None = None,
        *,
        structured: bool = False,
        dense: Iterable[nn.Parameter] = (),
        pretrained: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.settings = settings or PruningSettings()
        named = dict(model.named_parameters())
        names = listed_strings(names, "the names of the pool")
        for name in names:
            if name not in named:
                raise UsageError(f"the model has no parameter {name!r}")
        self.gated = {
            name: self._gated(named[name], structured, None if pretrained is None else pretrained[name])
            for name in names
        }
        entries = sum(item.diff.numel() for item in self.gated.values())
        given = self.settings.penalty
        self.penalty = PENALTY_TIMES_POOL / max(1, entries) if given is None else given
        self.dense = list(dense)
        diffs = [item.diff for item in self.gated.values()]
        gates = [item.alpha for item in self.gated.values()]
        gates += [item.group for item in self.gated.values() if item.group is not None]
        settings = self.settings
        self.optimisers: list[torch.optim.Optimizer] = [
            adamw([*diffs, *self.dense], settings.lr, settings.eps),
            adamw(gates, settings.gate_lr, settings.eps),
        ]
        self._handles: list[RemovableHandle] = [
            item.parameter.register_post_accumulate_grad_hook(lambda _, item=item: self._take_gradient(item))
            for item in self.gated.values()
        ]

    def _gated(self, parameter: nn.Parameter, structured: bool, pretrained: Tensor | None) -> Gated:
        if parameter.dtype not in (torch.float32, torch.float64):
            raise UsageError(f"diff pruning works in float32 or float64, not in {parameter.dtype}")
        start = self.settings.alpha_init
        kept = parameter.detach().clone() if pretrained is None else pretrained
        group = nn.Parameter(kept.new_full((1,), start)) if structured else None
        diff, alpha = nn.Parameter(torch.zeros_like(kept)), nn.Parameter(torch.full_like(kept, start))
        made = Gated(parameter, kept, diff, alpha, group, torch.ones_like(kept), kept.new_ones(1), (0, kept[:0]))
        made.seen = made.look()
        return made

    def sample(self) -> None:
        """Draw all gates anew and write theta = pretrained + z * w.

        Raises `UsageError` if something else wrote theta: torch counted it, or the first entry of a block differs.
        """
        for name, item in self.gated.items():
            item.require_unwritten(name)
        for item in self.gated.values():
            if item.group is not None:
                item.group_gate = sample(item.group.detach())
            tensors = item.parameter, item.pretrained, item.diff, item.alpha, item.gate
            for theta, pretrained, diff, alpha, gate in item.blocks(*tensors):
                gate.copy_(sample(alpha))
                torch.add(pretrained, (diff * gate).mul_(item.group_gate), out=theta)
            item.seen = item.look()

    def _take_gradient(self, item: Gated) -> None:
        """Turn dL/dtheta into the gradients of diff and gates."""
        gradient = item.parameter.grad
        assert gradient is not None
        item.parameter.grad = None
        by_alpha = torch.empty_like(item.diff)
        by_group = item.group_gate.new_zeros(1)
        for by_theta, diff, gate, out in item.blocks(gradient, item.diff, item.gate, by_alpha):
            by_gate = by_theta * diff
            by_group += torch.dot(by_gate, gate)
            torch.mul(by_gate.mul_(slope(gate)), item.group_gate, out=out)
            by_theta.mul_(gate).mul_(item.group_gate)
        _add(item.diff, gradient)
        _add(item.alpha, by_alpha)
        if item.group is not None:
            _add(item.group, by_group * slope(item.group_gate))

    def add_penalty(self) -> None:
        """Add the gradient of penalty x expected L0 norm to the gates' (once a step)."""
        for item in self.gated.values():
            group = None if item.group is None else open_probability(item.group.detach())
            factor = 1.0 if group is None or self.settings.structured_sum else group
            if item.alpha.grad is None:
                item.alpha.grad = torch.zeros_like(item.alpha)
            together = item.alpha.new_zeros(1)
            for alpha, gradient in item.blocks(item.alpha, item.alpha.grad):
                chance = open_probability(alpha)
                together += chance.sum()
                gradient += (chance * (1 - chance)).mul_(factor).mul_(self.penalty)
            if item.group is not None and group is not None:
                weight = item.alpha.numel() if self.settings.structured_sum else together
                _add(item.group, self.penalty * weight * group * (1 - group))

    def expected_open(self) -> float:
        """The expected L0 norm of the diff (product form)."""
        total = 0.0
        for item in self.gated.values():
            group = 1.0 if item.group is None else float(open_probability(item.group.detach()))
            total += group * float(open_probability(item.alpha.detach()).sum())
        return total

    def step(self) -> None:
        """Penalise, clip diff and gates separately, step both optimisers, drop the gradients."""
        self.add_penalty()
        for optimiser in self.optimisers:
            clip_and_step(optimiser, self.settings.clip)

    def settle(self) -> None:
        """Sample once more, write theta, and let go of the model."""
        self.sample()
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def state_dict(self) -> dict[str, Any]:
        """Diffs and gates, and the digests of what they are relative to."""
        return {
            name: {
                "diff": item.diff.detach(), "alpha": item.alpha.detach(), "group": _detached(item.group),
                "pretrained": digest(item.pretrained),
            }
            for name, item in self.gated.items()
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take diffs and gates of a pruner of the same tensors; the next sample overwrites what the model holds.

        Raises `UsageError` for a state of other tensors or of another base.
        """
        if list(state) != list(self.gated):
            raise UsageError("the pruner's state is of other tensors, or has them in another order")
        for name, item in self.gated.items():
            if state[name].get("pretrained") != digest(item.pretrained):
                raise UsageError(
                    f"{name!r}: the pruner's state is relative to another base; load that before making it"
                )
        for name, item in self.gated.items():
            item.seen = item.look()
            item.diff.detach().copy_(state[name]["diff"])
            item.alpha.detach().copy_(state[name]["alpha"])
            if item.group is not None:
                item.group.detach().copy_(state[name]["group"])


def _detached(value: nn.Parameter | None) -> Tensor | None:
    return None if value is None else value.detach()


def _add(value: nn.Parameter, gradient: Tensor) -> None:
    value.grad = gradient if value.grad is None else value.grad.add_(gradient)
