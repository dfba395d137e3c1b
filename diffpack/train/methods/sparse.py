"""The methods on SparseTuner: sparse, LT-SFT, SpIEL, BitFit and the top layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

from torch import Tensor

from diffpack.train.loop.stage import DenseStage, Stage, State
from diffpack.train.methods.defaults import BIAS_LR, FULL_LR, SPARSE_LR, SPARSE_WARMUP, epochs_of, find_lr_of, lr_of
from diffpack.train.selections.datafree import at_random, by_weight
from diffpack.train.selections.gradients import SAMPLES, by_gradient
from diffpack.train.selections.magnitude import by_change
from diffpack.train.selections.regrowth import INTERVAL, RATE, Regrowth
from diffpack.train.selections.structure import biases, layers
from diffpack.train.task import Task
from diffpack.train.tuners.optimise import adamw
from diffpack.train.tuners.positions import Positions
from diffpack.train.tuners.sparse import SparseTuner


class PickStage(Stage):
    """Picks positions by the selection the user named; trains nothing."""

    def __init__(self) -> None:
        super().__init__("picking", 0, 0.0)
        self._positions: Mapping[str, Tensor] = {}

    def start(self, task: Task, carried: State) -> None:  # noqa: ARG002 - the first stage
        """Score and pick."""
        options, body, k = task.options, task.body, task.budget
        if options.selection in ("fisher", "gradient"):
            batches = islice(task.batches(0, 1), -(-SAMPLES // task.batch_size))
            squared = options.selection == "fisher"
            self._positions = by_gradient(
                task.model, body, batches, k, squared=squared, floor=options.floor, precision=options.precision
            )
        elif options.selection == "random":
            self._positions = at_random(body, k, options.seed)
        else:
            self._positions = by_weight(body, k, largest=options.selection == "largest")

    def finish(self, task: Task) -> State:  # noqa: ARG002 - Stage's signature
        """Hand over the positions."""
        return {"positions": dict(self._positions)}


class SparseStage(Stage):
    """Trains the positions that the stage before picked, and the head, through a SparseTuner."""

    def __init__(self, epochs: int, lr: float, *, name: str = "training", warmup: float = SPARSE_WARMUP) -> None:
        super().__init__(name, epochs, lr, warmup)

    def positions(self, task: Task, carried: State) -> Positions:  # noqa: ARG002 - for stages that know them
        """The positions to begin with."""
        positions: Positions = carried["positions"]
        return positions

    def start(self, task: Task, carried: State) -> None:
        """Make the tuner and its optimiser."""
        self.tuner = SparseTuner(task.model, self.positions(task, carried), task.head)
        optimiser = adamw(self.tuner.parameters(), self.lr)
        self.add(self.tuner.attach(optimiser), task)

    def finish(self, task: Task) -> State:  # noqa: ARG002 - Stage's signature
        """Take the hooks off."""
        self.tuner.close()
        return {}

    def state(self) -> State:
        """The tuner's values beside the optimiser's state."""
        return {**super().state(), "tuner": self.tuner.state_dict()}

    def load(self, state: State) -> None:
        """Go on from them."""
        self.tuner.load_state_dict(state["tuner"])
        super().load(state)


class NamedStage(SparseStage):
    """Trains all entries of named parameters."""

    def __init__(self, epochs: int, lr: float, names: Sequence[str]) -> None:
        super().__init__(epochs, lr)
        self._names = names

    def positions(self, task: Task, carried: State) -> Positions:  # noqa: ARG002 - known from the start
        """Whole tensors."""
        return dict.fromkeys(self._names)


class RewindStage(DenseStage):
    """Full fine-tuning whose only result is where the model changed most; then everything goes back."""

    def start(self, task: Task, carried: State) -> None:
        """Remember the head, which no file holds."""
        super().start(task, carried)
        named = dict(task.model.named_parameters())
        self._head = {name: named[name].detach().clone() for name in task.head}

    def finish(self, task: Task) -> State:
        """Pick, then rewind: the body to the base, the head to where the stage began."""
        before = {**task.pretrained(), **self._head}
        after: dict[str, Tensor] = dict(task.model.named_parameters())
        positions = by_change(before, after, task.body, task.budget, task.options.floor)
        for name, value in after.items():
            value.detach().copy_(before[name])
        return {"positions": positions}

    def state(self) -> State:
        """The state, with the head to go back to."""
        return {**super().state(), "head": self._head}

    def load(self, state: State) -> None:
        """Go on from it."""
        super().load(state)
        self._head = state["head"]


class RegrowthStage(SparseStage):
    """SpIEL: positions that start at random and move."""

    def __init__(self, epochs: int, lr: float) -> None:
        super().__init__(epochs, lr)
        self._step = 0

    def positions(self, task: Task, carried: State) -> Positions:  # noqa: ARG002 - drawn from the seed
        """Draw the first ones."""
        return at_random(task.body, task.budget, task.options.seed)

    def start(self, task: Task, carried: State) -> None:
        """Let each slot's gradient propose where to grow, before the slot takes its own part of it."""
        super().start(task, carried)
        self._total = self.epochs * task.steps
        self._growing = [Regrowth(slot) for slot in self.tuner.slots if slot.positions is not None]
        for item in self._growing:
            item.slot.watch = item.propose

    def step(self) -> None:
        """Step; at every interval's end move the positions that the last gradient was asked about."""
        super().step()
        self._step += 1
        if self._step % INTERVAL == 0:
            for item in self._growing:
                item.regrow(self.optimisers[0])
        elif self._step % INTERVAL == INTERVAL - 1:
            rate = RATE * max(0.0, 1 - self._step / self._total)
            for item in self._growing:
                item.prepare(rate)

    def state(self) -> State:
        """The state, with what each slot remembers."""
        kept = [{"last": item.last, "wanted": item.wanted} for item in self._growing]
        return {**super().state(), "step": self._step, "growing": kept}

    def load(self, state: State) -> None:
        """Go on from it."""
        super().load(state)
        self._step = state["step"]
        for item, saved in zip(self._growing, state["growing"], strict=True):
            item.last, item.wanted = saved["last"], saved["wanted"]


def sparse(task: Task) -> Sequence[Stage]:
    """Pick once, train what was picked."""
    return [PickStage(), SparseStage(epochs_of(task.options), lr_of(task.options, SPARSE_LR))]


def lt_sft(task: Task) -> Sequence[Stage]:
    """Fine-tune fully, rewind, train what changed most."""
    epochs = epochs_of(task.options)
    find = RewindStage(epochs, find_lr_of(task.options), lambda task: list(task.body), name="finding")
    return [find, SparseStage(epochs, lr_of(task.options, SPARSE_LR))]


def spiel(task: Task) -> Sequence[Stage]:
    """Train positions that move."""
    return [RegrowthStage(epochs_of(task.options), lr_of(task.options, SPARSE_LR))]


def bitfit(task: Task) -> Sequence[Stage]:
    """Train the biases."""
    names = biases(task.model, task.head)
    return [NamedStage(epochs_of(task.options), lr_of(task.options, BIAS_LR), names)]


def top_layers(task: Task) -> Sequence[Stage]:
    """Train the top layers."""
    names = layers(task.model, task.head, task.options.layers)
    return [NamedStage(epochs_of(task.options), lr_of(task.options, FULL_LR), names)]
