"""SparseTuner in transformers' Trainer: one callback."""

from __future__ import annotations

from typing import Any

from diffpack.train.model import require_transformers
from diffpack.train.tuners.sparse import SparseTuner


def trainer_callback(tuner: SparseTuner, max_norm: float | None = None) -> Any:
    """The callback that lets transformers' `Trainer` train a tuner's entries.

    ::

        optimiser = tuner.attach(torch.optim.AdamW(tuner.parameters(), lr=1e-3))
        Trainer(model, args, optimizers=(optimiser, None), callbacks=[trainer_callback(tuner)], ...)

    The Trainer clips the gradients of the *module*, of which those of tuned entries are gone by then. The callback
    clips all that the tuner trains together, to `max_norm` or else to the Trainer's `max_grad_norm`, which is 0
    while it trains. Raises `MissingDependencyError` without transformers.
    """
    require_transformers()
    from transformers import TrainerCallback

    class SparseTunerCallback(TrainerCallback):  # type: ignore[misc]  # transformers is optional: no types where it is not
        def on_train_begin(self, args: Any, *_: Any, **__: Any) -> None:
            self.own, args.max_grad_norm = args.max_grad_norm, 0.0
            self.limit = self.own if max_norm is None else max_norm

        def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
            if self.limit:
                tuner.clip(self.limit)

        def on_train_end(self, args: Any, *_: Any, **__: Any) -> None:
            args.max_grad_norm = self.own

    return SparseTunerCallback()
