"""SparseTuner in transformers' Trainer: one callback."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from diffpack.errors import UsageError
from diffpack.train.model import require_transformers
from diffpack.train.tuners.sparse import SparseTuner
from diffpack.train.tuners.state import STATE_FILE, read_state, write_state


def trainer_callback(
    tuner: SparseTuner, max_norm: float | None = None, resume_from: str | os.PathLike[str] | None = None
) -> Any:
    """The callback that lets transformers' `Trainer` train a tuner's entries.

        optimiser = tuner.attach(torch.optim.AdamW(tuner.parameters(), lr=1e-3))
        Trainer(model, args, optimizers=(optimiser, None), callbacks=[trainer_callback(tuner)], ...)

    The Trainer clips the gradients of the *module*, of which those of tuned entries are gone. The callback clips all
    that the tuner trains together, to `max_norm` or else to the Trainer's `max_grad_norm`, 0 while it trains.

    Into each checkpoint's folder it writes the tuner's state (`STATE_FILE`; not in a hyperparameter search). A run
    that resumes must find it: in `resume_from`, else in `args.resume_from_checkpoint`, else in the checkpoint of that
    step in `args.output_dir`; it must hold what the Trainer has loaded. With `load_best_model_at_end` the tuner ends
    with the best values.

    Raises `MissingDependencyError` without transformers; while training `UsageError`, `CorruptFileError`.
    """
    require_transformers()
    from transformers import TrainerCallback

    class SparseTunerCallback(TrainerCallback):  # type: ignore[misc]  # transformers is optional: no types where it is not
        def __init__(self) -> None:
            self.own = 0.0

        def on_train_begin(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
            if state.global_step:  # the model's weights and the optimiser's state are loaded by now
                given = [resume_from or args.resume_from_checkpoint, _checkpoint(args, state)]
                _resume(tuner, [Path(folder) for folder in given[: 1 if resume_from else 2] if folder])
            tuner.settle()
            self.own = args.max_grad_norm or self.own  # 0 where a run before was broken off
            args.max_grad_norm = 0.0
            self.limit = self.own if max_norm is None else max_norm

        def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
            if self.limit:
                tuner.clip(self.limit)

        def on_save(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
            if args.should_save and not state.is_hyper_param_search:
                write_state(tuner.state_dict(), _checkpoint(args, state) / STATE_FILE)

        def on_train_end(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
            args.max_grad_norm, self.own = self.own, 0.0
            best = state.best_model_checkpoint if args.load_best_model_at_end else None
            if best is not None and (path := Path(best) / STATE_FILE).is_file():
                _take(tuner, path)
            tuner.settle()

    return SparseTunerCallback()


def _checkpoint(args: Any, state: Any) -> Path:
    """The folder of the checkpoint at the step a run has reached."""
    from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

    return Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"


def _resume(tuner: SparseTuner, folders: list[Path]) -> None:
    """Take the tuner's state from the first of the folders that has one."""
    for folder in folders:
        if (folder / STATE_FILE).is_file():
            return _take(tuner, folder / STATE_FILE)
    raise UsageError(
        f"the run resumes, but there is no {STATE_FILE} in {' or '.join(map(str, folders))}: name the checkpoint's "
        "folder in trainer_callback(tuner, resume_from=FOLDER); one written without this callback cannot be resumed"
    )


def _take(tuner: SparseTuner, path: Path) -> None:
    state = read_state(path)
    if not tuner.matches(state):
        raise UsageError(
            f"{path}: not of the weights that the Trainer has loaded; name the folder that it was given in "
            "trainer_callback(tuner, resume_from=FOLDER)"
        )
    tuner.load_state_dict(state)
