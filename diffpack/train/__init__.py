"""The bundled trainer: tasks as sparse diffs, and the methods they are compared with.

::

    from diffpack.train import SparseTuner, TrainOptions, load_task, train

    done = train("model", "train.tsv", "dev.tsv", "task.dpk", TrainOptions(method="sparse", density=0.005))
    print(done.scores["accuracy"], done.stored.nbytes)
    print(load_task("model", "task.dpk").predict(["what a film"]))

Needs the extra `[train]` (torch, transformers); nothing else of diffpack imports this package.
"""

from diffpack.train.evaluate import TaskModel, load_task
from diffpack.train.options import METHODS, SELECTIONS, TrainOptions
from diffpack.train.run import Trained, train
from diffpack.train.tuners.diff_pruning import DiffPruner, PruningSettings
from diffpack.train.tuners.sparse import SparseTuner
from diffpack.train.tuners.trainer_callback import trainer_callback

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
