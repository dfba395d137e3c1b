"""The training loop: stages, batches, checkpoints. The whole of it stands in `fit`."""

from __future__ import annotations

import math
import pickle
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from diffpack.errors import CheckpointError, CorruptFileError, DivergedError, UsageError
from diffpack.support.aside import aside
from diffpack.support.atomic import atomic_file
from diffpack.support.parallel import Progress
from diffpack.train.loop.cost import Cost, Meter
from diffpack.train.loop.stage import Stage, State
from diffpack.train.task import STAGE_SEEDS, Task
from diffpack.train.tuners.optimise import values_of

SECONDS_BETWEEN = 60.0
"""Between two checkpoints of a running stage: what an interruption costs at most."""


@dataclass(frozen=True)
class Resume:
    """Where a run keeps its checkpoint, what the run is (`identity`), and whether to go on from there."""

    path: Path
    identity: str
    resume: bool
    seconds_between: float = SECONDS_BETWEEN


@dataclass
class _Place:
    """Where a run stands: in front of batch `step` of stage `stage`; `running` is that stage's state, if begun."""

    stage: int = 0
    step: int = 0
    carried: State | None = None
    running: State | None = None


@dataclass(frozen=True)
class Fitted:
    """What a run did: how many numbers its last stage trained, and what it cost, interrupted or not."""

    trained: int
    cost: Cost


def fit(task: Task, stages: Sequence[Stage], resume: Resume | None = None, progress: Progress | None = None) -> Fitted:
    """Train the task's model through all stages.

    The same seed gives the same bits on one machine with one number of threads, also when the run is resumed. Raises
    `DivergedError` if a loss or a trained number is not finite, `UsageError` if there is a checkpoint of another run,
    `CorruptFileError` if it cannot be read, `CheckpointError` if one cannot be written.
    """
    place, meter = _Place(), Meter()
    if resume is not None and resume.resume and resume.path.exists():
        place, meter.before = _read(task, resume)
    total = sum(stage.epochs for stage in stages) * task.steps
    done = sum(stage.epochs for stage in stages[: place.stage]) * task.steps + place.step
    saved = time.monotonic()
    for at in range(place.stage, len(stages)):
        stage = stages[at]
        torch.manual_seed(task.options.seed * STAGE_SEEDS + at)
        task.model.train()
        carried = place.carried or {}
        stage.start(task, carried)
        if place.running is not None:
            stage.load(place.running["stage"])
            torch.set_rng_state(place.running["random"])
        for step, batch in enumerate(task.batches(at, stage.epochs, place.step), place.step + 1):
            loss = stage.loss(task, batch)
            if not math.isfinite(loss_value := loss.item()):
                raise DivergedError(f"at step {step} of the stage {stage.name!r} the loss is {loss_value}")
            loss.backward()
            stage.step()
            done += 1
            if progress is not None:
                progress(stage.name, done, total)
            if resume is not None and time.monotonic() - saved >= resume.seconds_between:
                running = {"stage": stage.state(), "random": torch.get_rng_state()}
                _write(task, resume, _Place(at, step, carried, running), meter.read())
                saved = time.monotonic()
        _require_finite(stage)
        place = _Place(at + 1, 0, stage.finish(task))
        if resume is not None and stage.epochs and at + 1 < len(stages):
            _write(task, resume, place, meter.read())
    task.model.eval()
    return Fitted(stages[-1].trained(), meter.read())


def _require_finite(stage: Stage) -> None:
    """Raise `DivergedError` if a number that a stage has trained is not finite: its last step shows in no loss."""
    values = [value for optimiser in stage.optimisers for value in values_of(optimiser)]
    if not all(bool(value.isfinite().all()) for value in values):
        raise DivergedError(f"the stage {stage.name!r} ends with numbers that are not finite")


def _write(task: Task, resume: Resume, place: _Place, cost: Cost) -> None:
    state = {"identity": resume.identity, "cost": asdict(cost), "model": task.model.state_dict(), **vars(place)}
    try:
        with atomic_file(resume.path, replace=True) as file:
            aside(lambda: torch.save(state, file))  # which would make an error of its own of a signal's exception
    except (OSError, RuntimeError) as error:
        hidden = error.__context__ if isinstance(error, RuntimeError) else None  # torch hides what the system said
        raise CheckpointError(f"{resume.path}: cannot be written: {hidden or error}") from error


def _read(task: Task, resume: Resume) -> tuple[_Place, Cost]:
    """Go back to the checkpoint: the model's tensors now, the rest as a place; and what was spent until there."""
    try:
        state = torch.load(resume.path, weights_only=True, map_location="cpu")
        identity, cost = state.pop("identity"), Cost(**state.pop("cost"))
    except (RuntimeError, KeyError, TypeError, EOFError, ValueError, AttributeError, pickle.UnpicklingError) as error:
        raise CorruptFileError(f"{resume.path}: not a checkpoint of the trainer; delete it") from error
    if identity != resume.identity:
        raise UsageError(
            f"{resume.path}: the checkpoint of another run (other model, data or options); "
            "repeat the options it was begun with; --force without --resume begins anew"
        )
    task.model.load_state_dict(state.pop("model"))
    return _Place(**state), cost


def forget(resume: Resume) -> None:
    """Remove the checkpoint of a run that has ended."""
    resume.path.unlink(missing_ok=True)
