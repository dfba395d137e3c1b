"""A stage: one run through the data with one set of trained values. A method is a list of stages."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from diffpack.train.data import Batch
from diffpack.train.precision import autocast
from diffpack.train.task import Task
from diffpack.train.tuners.optimise import adamw, clip_and_step, values_of

State = dict[str, Any]
"""Tensors, numbers, text and dicts and lists of them: what `torch.load(weights_only=True)` reads back."""


class Stage(ABC):
    """One run through the data.

    The loop calls `start`, then for each batch `loss` and `step`, then `finish`, whose result the next stage's
    `start` is given. `state` and `load` carry a stage over an interruption: the loop restores the model's own
    tensors, then calls `start`, then `load`. A stage of 0 epochs only prepares the next one.
    """

    def __init__(self, name: str, epochs: int, lr: float, warmup: float = 0.0) -> None:
        self.name = name
        self.epochs = epochs
        self.lr = lr
        self.warmup = warmup
        self.optimisers: list[torch.optim.Optimizer] = []
        self.schedulers: list[LambdaLR] = []

    @abstractmethod
    def start(self, task: Task, carried: State) -> None:
        """Set up optimisers; `carried` is what the stage before left."""

    def loss(self, task: Task, batch: Batch) -> Tensor:
        """The loss of a batch, a scalar."""
        with autocast(task.options.precision):
            loss: Tensor = task.model(**batch).loss
        return loss

    def step(self) -> None:
        """Clip, then step every optimiser and schedule."""
        for optimiser in self.optimisers:
            clip_and_step(optimiser)
        for scheduler in self.schedulers:
            scheduler.step()

    def trained(self) -> int:
        """Count the numbers that are trained."""
        return sum(value.numel() for optimiser in self.optimisers for value in values_of(optimiser))

    def finish(self, task: Task) -> State:  # noqa: ARG002 - most stages leave nothing behind but the model
        """What the next stage needs; the model holds the result."""
        return {}

    def state(self) -> State:
        """What goes on in this stage, apart from the model's own tensors."""
        return {
            "optimisers": [item.state_dict() for item in self.optimisers],
            "schedulers": [item.state_dict() for item in self.schedulers],
        }

    def load(self, state: State) -> None:
        """Go on from a state."""
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        for scheduler, saved in zip(self.schedulers, state["schedulers"], strict=True):
            scheduler.load_state_dict(saved)

    def add(self, optimiser: torch.optim.Optimizer, task: Task | None) -> None:
        """Take an optimiser; its rate rises in the warm-up, then falls linearly to 0. Without a task it is constant."""
        self.optimisers.append(optimiser)
        if task is not None:
            from transformers import get_linear_schedule_with_warmup

            steps = self.epochs * task.steps
            self.schedulers.append(get_linear_schedule_with_warmup(optimiser, round(self.warmup * steps), steps))


class DenseStage(Stage):
    """Trains whole parameters with AdamW: those that `choose` names, and the head."""

    def __init__(
        self, epochs: int, lr: float, choose: Callable[[Task], Sequence[str]], *, name: str = "training",
        warmup: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(name, epochs, lr, warmup)
        self._choose = choose

    def start(self, task: Task, carried: State) -> None:  # noqa: ARG002 - starts from the model as it is
        """Freeze everything else."""
        values = train_only(task.model, {*self._choose(task), *task.head})
        self.add(adamw(values, self.lr), task)


def train_only(model: nn.Module, names: set[str]) -> list[nn.Parameter]:
    """Let only the named parameters have gradients; give them."""
    for name, value in model.named_parameters():
        value.requires_grad_(name in names)
    return [value for value in model.parameters() if value.requires_grad]
