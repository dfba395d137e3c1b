"""The methods by name. One method a file, or one file for several that differ in a line.

Each is a function of a task that prepares the model (adapters add modules) and gives its stages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from diffpack.train.methods import adapters, dense, diff_pruning, lora, model_pruning, sparse
from diffpack.train.options import METHODS
from diffpack.train.stage import Stage
from diffpack.train.task import Task

Method = Callable[[Task], Sequence[Stage]]

_KNOWN: dict[str, Method] = {
    "sparse": sparse.sparse,
    "lt-sft": sparse.lt_sft,
    "spiel": sparse.spiel,
    "bitfit": sparse.bitfit,
    "top-layers": sparse.top_layers,
    "diff-pruning": diff_pruning.unstructured,
    "diff-pruning-structured": diff_pruning.structured,
    "non-adaptive": diff_pruning.non_adaptive,
    "full": dense.full,
    "last-layer": dense.last_layer,
    "head-only": dense.head_only,
    "adapters": adapters.houlsby,
    "lora": lora.lora,
    "magnitude-pruning": model_pruning.magnitude,
    "movement-pruning": model_pruning.movement,
}
BATCH_SIZES = {"diff-pruning": 8, "diff-pruning-structured": 8}
"""Texts a batch where a method was published with a small one; 32 for the others."""


def stages_of(task: Task) -> Sequence[Stage]:
    """Prepare the task's model for its method and give the stages."""
    assert set(_KNOWN) == set(METHODS)
    return _KNOWN[task.options.method](task)
