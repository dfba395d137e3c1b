"""Diff pruning's stages: gates, projection, fixed mask; and the non-adaptive variant.

Guo, Rush, Kim 2021 (arXiv 2012.07463): section 3 for the gates, 3.2 for the structured ones, 3.3 for the projection by
magnitude over the whole model and the training with a fixed mask, 4.2 for the non-adaptive baseline: full
fine-tuning, the same projection, the same last stage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from diffpack.train.data import Batch
from diffpack.train.loop.stage import DenseStage, Stage, State, train_only
from diffpack.train.methods.defaults import FULL_LR, epochs_of, find_lr_of, lr_of
from diffpack.train.methods.sparse import SparseStage
from diffpack.train.selections.magnitude import by_change
from diffpack.train.task import Task
from diffpack.train.tuners.diff_pruning import DiffPruner, PruningSettings

FIXED_OVER_FIRST = PruningSettings.fixed_lr / PruningSettings.lr
"""The last stage's learning rate over the first's, as published; kept when the user chooses another."""


class GateStage(Stage):
    """Trains diff and gates, and the head without gates; ends with the projection."""

    def __init__(self, epochs: int, settings: PruningSettings, structured: bool) -> None:
        super().__init__("gates", epochs, settings.lr)
        self._settings = settings
        self._structured = structured

    def start(self, task: Task, carried: State) -> None:  # noqa: ARG002 - the first stage
        """Make the pruner."""
        body = list(task.body)
        train_only(task.model, {*body, *task.head})
        named = dict(task.model.named_parameters())
        self._pruner = DiffPruner(
            task.model, body, self._settings, structured=self._structured,
            dense=[named[name] for name in task.head], pretrained=task.pretrained(),
        )  # fmt: skip
        self.add(self._pruner.optimisers[0], task)
        self.add(self._pruner.optimisers[1], None)

    def loss(self, task: Task, batch: Batch) -> Tensor:
        """Draw all gates anew and give the task's loss under them."""
        self._pruner.sample()
        return super().loss(task, batch)

    def step(self) -> None:
        """Step diff and gates."""
        self._pruner.step()
        self.schedulers[0].step()

    def finish(self, task: Task) -> State:
        """Draw the gates a last time and project: keep the largest |z * w| of the whole pool.

        The kept entries go on from the diff w itself, as published, all others go back to the base.
        """
        self._pruner.settle()
        before = {name: item.pretrained for name, item in self._pruner.gated.items()}
        positions = project(task, before)
        for name, item in self._pruner.gated.items():
            if name in positions:
                at, flat = positions[name], item.parameter.detach().view(-1)
                flat[at] = (item.pretrained.view(-1)[at] + item.diff.detach().view(-1)[at]).to(flat.dtype)
        return {"positions": positions}

    def state(self) -> State:
        """The state, with diff and gates."""
        return {**super().state(), "pruner": self._pruner.state_dict()}

    def load(self, state: State) -> None:
        """Go on from them."""
        self._pruner.load_state_dict(state["pruner"])
        super().load(state)


class MagnitudeStage(DenseStage):
    """Full fine-tuning, projected at its end: what changed most stays, the rest goes back to the base."""

    def finish(self, task: Task) -> State:
        """Project."""
        return {"positions": project(task, task.pretrained())}


def project(task: Task, before: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Keep the density's number of entries that differ most from `before`, put all others of the pool back."""
    body = task.body
    positions = by_change(before, body, body, task.budget, task.options.floor)
    for name, value in body.items():
        flat, base = value.detach().view(-1), before[name].view(-1)
        at = positions.get(name)
        kept = None if at is None else flat[at]
        flat.copy_(base)
        if at is not None and kept is not None:
            flat[at] = kept
    return positions


def unstructured(task: Task) -> Sequence[Stage]:
    """Diff pruning with a gate an entry."""
    return _stages(task, structured=False)


def structured(task: Task) -> Sequence[Stage]:
    """Diff pruning with a gate an entry and one a tensor."""
    return _stages(task, structured=True)


def _stages(task: Task, structured: bool) -> Sequence[Stage]:
    options = task.options
    settings = PruningSettings(lr=lr_of(options, PruningSettings.lr), penalty=options.penalty)
    fixed_lr = FIXED_OVER_FIRST * settings.lr if options.fixed_lr is None else options.fixed_lr
    fixed = SparseStage(epochs_of(options, settings.fixed_epochs), fixed_lr, name="fixed mask", warmup=0.0)
    return [GateStage(epochs_of(options, settings.epochs), settings, structured), fixed]


def non_adaptive(task: Task) -> Sequence[Stage]:
    """Full fine-tuning, projection, fixed mask."""
    options = task.options
    epochs, lr = epochs_of(options), lr_of(options, FIXED_OVER_FIRST * FULL_LR)
    find = MagnitudeStage(epochs, find_lr_of(options), lambda task: list(task.body), name="finding")
    return [find, SparseStage(epochs, lr, name="fixed mask", warmup=0.0)]
