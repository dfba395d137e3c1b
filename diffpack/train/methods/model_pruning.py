"""Pruning the fine-tuned model itself, by magnitude or by movement.

These make the *model* sparse: `density` is the part of the encoder's matrix entries that stay, the others become 0. The
difference from the base is then dense, which is what the comparison shows. Both fine-tune all parameters while the
kept part falls from 1 to the density by the cubic schedule of Zhu and Gupta 2017 (arXiv 1710.01878).

`magnitude`: each matrix keeps its largest entries. `movement`: each keeps the entries with the highest scores, a
score having the gradient of a straight-through mask, dL/dW_masked * W (Sanh, Wolf, Rush 2020, arXiv 2005.07683).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from diffpack.train.data import Batch
from diffpack.train.loop.stage import Stage, State, train_only
from diffpack.train.methods.defaults import FULL_LR, epochs_of, lr_of
from diffpack.train.model import encoder_layers
from diffpack.train.task import Task
from diffpack.train.tuners.optimise import adamw, clip_and_step

COOLDOWN = 1 / 3
"""The last part of training keeps the final density, so that the rest recovers."""
SCORE_LR = 1e-2
"""Movement pruning's learning rate of the scores (its code)."""


class Pruned:
    """One matrix: the dense weights that are trained, and the mask that the model sees them through."""

    def __init__(self, parameter: nn.Parameter, scored: bool) -> None:
        self.parameter = parameter
        self.dense = nn.Parameter(parameter.detach().clone())
        self.scores = nn.Parameter(torch.zeros_like(self.dense)) if scored else None
        self.mask = torch.ones_like(parameter, dtype=torch.bool)

    def write(self) -> None:
        """Let the model see the masked weights."""
        torch.mul(self.dense.detach(), self.mask, out=self.parameter.detach())

    def take_gradient(self, parameter: Tensor) -> None:
        """Pass the masked weights' gradient on to the kept weights and, straight through the mask, to the scores."""
        gradient = parameter.grad
        assert gradient is not None
        if self.scores is not None:
            self.scores.grad = gradient * self.dense.detach()
        self.dense.grad = gradient.mul_(self.mask)
        parameter.grad = None


class PruningStage(Stage):
    """Full fine-tuning under masks that close by a schedule."""

    def __init__(self, epochs: int, lr: float, movement: bool) -> None:
        super().__init__("training", epochs, lr)
        self._movement = movement
        self._step = 0

    def start(self, task: Task, carried: State) -> None:  # noqa: ARG002 - the only stage
        """Put masks on the matrices of the encoder's layers."""
        train_only(task.model, {*task.body, *task.head})
        prefixes = tuple(prefix + "." for prefix, _ in encoder_layers(task.model))
        chosen = [name for name, value in task.body.items() if name.startswith(prefixes) and value.dim() > 1]
        named = dict(task.model.named_parameters())
        self._density = task.options.density
        self._closing = max(1, round((1 - COOLDOWN) * self.epochs * task.steps))
        self._pruned = [Pruned(named[name], self._movement) for name in chosen]
        for item in self._pruned:
            item.parameter.register_post_accumulate_grad_hook(item.take_gradient)
        others = [value for name, value in named.items() if name not in set(chosen)]
        trained = [*others, *(item.dense for item in self._pruned)]
        self.add(adamw(trained, self.lr), task)
        if self._movement:
            scores = [item.scores for item in self._pruned if item.scores is not None]
            self.add(adamw(scores, SCORE_LR), task)

    def loss(self, task: Task, batch: Batch) -> Tensor:
        """Close the masks a little further, then give the loss."""
        self._close(self._kept())
        return super().loss(task, batch)

    def step(self) -> None:
        """Clip the weights' gradients (the scores' own scale is their learning rate's business) and step."""
        weights, *scores = self.optimisers
        clip_and_step(weights)
        for optimiser in scores:
            clip_and_step(optimiser, norm=None)
        for scheduler in self.schedulers:
            scheduler.step()
        self._step += 1

    def finish(self, task: Task) -> State:  # noqa: ARG002 - Stage's signature
        """Leave the model with exact zeros."""
        self._close(self._density)
        return {}

    def _kept(self) -> float:
        """The part that stays at this step: cubic from 1 to the density."""
        left = max(0.0, 1 - self._step / self._closing)
        return self._density + (1 - self._density) * left**3

    def _close(self, kept: float) -> None:
        for item in self._pruned:
            scores = item.dense.detach().abs() if item.scores is None else item.scores.detach()
            count = max(1, round(kept * scores.numel()))
            limit = scores.reshape(-1).kthvalue(scores.numel() - count + 1).values
            item.mask = scores >= limit
            item.write()

    def state(self) -> State:
        """The state, with the dense weights, scores and the step."""
        kept = [
            {"dense": item.dense.detach(), "scores": None if item.scores is None else item.scores.detach()}
            for item in self._pruned
        ]
        return {**super().state(), "step": self._step, "pruned": kept}

    def load(self, state: State) -> None:
        """Go on from them."""
        super().load(state)
        self._step = state["step"]
        for item, saved in zip(self._pruned, state["pruned"], strict=True):
            item.dense.detach().copy_(saved["dense"])
            if item.scores is not None:
                item.scores.detach().copy_(saved["scores"])


def magnitude(task: Task) -> Sequence[Stage]:
    """Prune by magnitude while fine-tuning."""
    return [PruningStage(epochs_of(task.options), lr_of(task.options, FULL_LR), movement=False)]


def movement(task: Task) -> Sequence[Stage]:
    """Prune by movement while fine-tuning."""
    return [PruningStage(epochs_of(task.options), lr_of(task.options, FULL_LR), movement=True)]
