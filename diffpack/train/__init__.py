"""The bundled trainer: tasks as sparse diffs, and the methods they are compared with.

::

    from diffpack.train import SparseTuner, TrainOptions, load_task, train

    done = train("model", "train.tsv", "dev.tsv", "task.dpk", TrainOptions(method="sparse", density=0.005))
    print(done.scores["accuracy"], done.stored.nbytes)
    print(load_task("model", "task.dpk").predict(["what a film"]))

Needs the extra `[train]` (torch, transformers); nothing else of diffpack imports this package.
"""

from typing import TYPE_CHECKING

from diffpack.support.lazily import lazy_members
from diffpack.train.options import METHODS, SELECTIONS, TrainOptions

if TYPE_CHECKING:
    from diffpack.train.evaluate import TaskModel, load_task
    from diffpack.train.run import Trained, train
    from diffpack.train.tuners.diff_pruning import DiffPruner, PruningSettings
    from diffpack.train.tuners.sparse import SparseTuner
    from diffpack.train.tuners.trainer_callback import trainer_callback
else:  # loaded when asked for: options can be checked without torch
    __getattr__ = lazy_members(
        __name__,
        {
            "DiffPruner": "tuners.diff_pruning",
            "PruningSettings": "tuners.diff_pruning",
            "SparseTuner": "tuners.sparse",
            "TaskModel": "evaluate",
            "Trained": "run",
            "load_task": "evaluate",
            "train": "run",
            "trainer_callback": "tuners.trainer_callback",
        },
    )

__all__ = [
    "METHODS",
    "SELECTIONS",
    "DiffPruner",
    "PruningSettings",
    "SparseTuner",
    "TaskModel",
    "TrainOptions",
    "Trained",
    "load_task",
    "train",
    "trainer_callback",
]
