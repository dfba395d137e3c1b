"""The methods by name. One method a file, or one file for several that differ in a line.

Each is a function of a task that prepares the model (adapters add modules) and gives its stages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from diffpack.train.loop.stage import DenseStage, Stage
from diffpack.train.methods import adapters, dense, diff_pruning, lora, model_pruning, sparse
from diffpack.train.methods.defaults import HEAD_LR
from diffpack.train.options import METHODS
from diffpack.train.task import Task
from diffpack.train.tuners.diff_pruning import PruningSettings

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
BATCH_SIZES = dict.fromkeys(("diff-pruning", "diff-pruning-structured"), PruningSettings.batch_size)
"""Texts a batch where a method was published with a small one; 32 for the others."""
HEAD_EPOCHS = {"sparse": 1}
"""Epochs of the head alone before everything else: gradients through a random head say little about which entries
matter (corporate_messaging, two epochs: 93.3 instead of 90.1 %) and distort the body (Kumar et al. 2022, arXiv
2202.10054)."""


def stages_of(task: Task) -> Sequence[Stage]:
    """Prepare the task's model for its method and give the stages."""
    assert set(_KNOWN) == set(METHODS)
    options = task.options
    stages = list(_KNOWN[options.method](task))
    epochs = HEAD_EPOCHS.get(options.method, 0) if options.head_epochs is None else options.head_epochs
    return [*([DenseStage(epochs, HEAD_LR, lambda _: (), name="head")] if epochs else []), *stages]
