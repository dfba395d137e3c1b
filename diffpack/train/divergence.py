"""Training that diverged, told from training that only went badly: of the one there is no result.

A loss or a trained number that is not finite says it at once (`diffpack.train.loop.fit`). A high learning rate may
also leave finite numbers that know nothing. Such a result is refused if all of this holds for the stored file:

- Of the dev texts it tells no more than the most frequent label does (`DEVIATIONS`), and its loss on them is more than
  `TIMES_WORSE` what guessing costs, the logarithm of the number of labels.
- The same on the texts it was trained on, where the loss is more than `TIMES_WORSE` the model's before training, too.

A run that has not learnt, or has learnt its texts by heart, has no such loss on those: training lowers just that.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from torch import nn

from diffpack.errors import DivergedError
from diffpack.train.data import Encoded
from diffpack.train.evaluate import Answers, ask
from diffpack.train.model import load_classifier
from diffpack.train.task import Task

TIMES_WORSE = 3.0
"""A learning rate of 100 leaves losses of 6 to 1000 times those of guessing, one that is merely poor of 1 to 2."""
DEVIATIONS = 2.0
"""Standard deviations of the most frequent label's share that luck may give to an accuracy."""
TEXTS = 1024
"""Training texts looked at, evenly spaced: enough to tell a share to three points."""


def require_sense(task: Task, model: nn.Module, dev: Answers) -> None:
    """Raise `DivergedError` if the stored task's model, and its answers to the dev texts, are those of no training."""
    if not dev.finite:
        raise DivergedError("the stored model's answers are not finite")
    if not _senseless(dev, task.dev, len(task.labels)):
        return
    data = _some(task.train)
    learnt = ask(model, data, task.tokenizer)
    if learnt.finite and not _senseless(learnt, data, len(task.labels)):
        return
    start: Any = load_classifier(task.folder, task.labels, task.options.seed).model
    start.config.pad_token_id = getattr(task.model.config, "pad_token_id", None)
    before = ask(start, data, task.tokenizer).loss
    if not learnt.loss <= TIMES_WORSE * before:  # nor a number
        raise DivergedError(
            f"on the texts it was trained on the loss is {learnt.loss:.3g}, before it was "
            f"{before:.3g}; of the dev texts {dev.accuracy:.1%} are right, as with one answer for all"
        )


def _senseless(answers: Answers, data: Encoded, classes: int) -> bool:
    most = max(Counter(data.labels).values()) / len(data)
    luck = DEVIATIONS * math.sqrt(most * (1 - most) / len(data))
    return answers.accuracy <= most + luck and answers.loss > TIMES_WORSE * math.log(classes)


def _some(data: Encoded) -> Encoded:
    chosen = range(0, len(data), -(-len(data) // TEXTS))
    return Encoded(tuple(data.rows[at] for at in chosen), tuple(data.labels[at] for at in chosen))
