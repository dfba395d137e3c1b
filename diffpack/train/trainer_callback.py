"""SparseTuner in transformers' Trainer: one callback."""

from __future__ import annotations

from typing import Any

from diffpack.train.model import require_transformers
from diffpack.train.sparse import SparseTuner


def trainer_callback(tuner: SparseTuner, max_norm: float | None = None) -> Any:
    """Give the callback that lets transformers' `Trainer` train a tuner's entries.

    ::

        optimiser = tuner.attach(torch.optim.AdamW(tuner.parameters(), lr=1e-3))
        Trainer(model, args, optimizers=(optimiser, None), callbacks=[trainer_callback(tuner)], ...)

    The Trainer clips the gradients of the *module*, which are gone by then; the callback clips the compact ones, to
    `max_norm` or else to the Trainer's own `max_grad_norm`. Raises `MissingDependencyError` without transformers.
    """
    require_transformers()
    from transformers import TrainerCallback

    def on_pre_optimizer_step(_self: Any, args: Any, *_: Any, **__: Any) -> None:
        limit = args.max_grad_norm if max_norm is None else max_norm
        if limit:
            tuner.clip(limit)

    return type("SparseTunerCallback", (TrainerCallback,), {"on_pre_optimizer_step": on_pre_optimizer_step})()
