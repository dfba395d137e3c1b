"""A stored task at work: the file applied to the base, its classes predicted, its scores counted."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from diffpack.checkpoints import open_checkpoint
from diffpack.diff.diff import DiffLike, open_diff
from diffpack.diff.sidefiles import side_contents
from diffpack.errors import CorruptFileError, MissingDependencyError, UsageError
from diffpack.result.apply import load
from diffpack.train.data import Encoded, collate, encode, sorted_batches
from diffpack.train.methods import adapters, lora
from diffpack.train.model import build_classifier, load_tokenizer, plain_name
from diffpack.train.save import CONFIG
from diffpack.train.strings import listed_strings

_BUILDERS = {"houlsby": adapters.rebuild, "lora": lora.rebuild}
"""What a file's metadata may name under `builder.kind`: how modules that the base lacks are built."""
EVALUATION_BATCH = 64
"""Texts predicted at a time; fixed, so that the same texts give the same bits."""


@dataclass
class TaskModel:
    """A task read from its file: the model, in evaluation mode, and what it takes to ask it."""

    model: nn.Module
    tokenizer: Any
    labels: tuple[str, ...]
    max_length: int
    pairs: bool

    def predict(self, texts: Iterable[str], pairs: Iterable[str] = ()) -> list[str]:
        """Each text's (or pair's) label.

        Raises `UsageError` if the task was trained on the other kind, if there are not as many `pairs` as `texts`, for
        a single string in place of a list, and if the model's answers are not finite.
        """
        texts, pairs = listed_strings(texts, "texts"), listed_strings(pairs, "pairs")
        if bool(pairs) != self.pairs and texts:
            raise UsageError(f"the task was trained on {'pairs of texts' if self.pairs else 'single texts'}")
        if pairs and len(pairs) != len(texts):
            raise UsageError(f"{len(texts)} texts and {len(pairs)} pairs: each text has one")
        if not texts:
            return []
        answers = ask(
            self.model, encode(texts, pairs, [0] * len(texts), self.tokenizer, self.max_length), self.tokenizer
        )
        if not answers.finite:
            raise UsageError("the model's answers are not finite: it was trained with too high a learning rate")
        return [self.labels[at] for at in answers.likeliest]


def load_task(base: str | os.PathLike[str], diff: DiffLike) -> TaskModel:
    """Apply a trained task's file to the base's model folder, in memory.

    Raises `WrongBaseError`, `CorruptFileError`, `UsageError` (a diff that the trainer did not make).
    """
    opened = open_diff(diff)
    checkpoint = open_checkpoint(base)
    opened.view(checkpoint)  # refuses a base of other tensors before its side files are looked at
    contents = side_contents(opened, checkpoint)
    notes = opened.metadata
    if CONFIG not in contents or "train" not in notes:
        raise UsageError(f"{opened.name}: no diff of the trainer: its config.json or its metadata is missing")
    try:
        config, builder = json.loads(contents[CONFIG]), json.loads(notes.get("builder", "{}"))
        max_length = int(json.loads(notes["train"])["max_length"])
        pairs = bool(json.loads(notes["data"])["train"]["pairs"])
        labels = tuple(config["id2label"][str(at)] for at in range(len(config["id2label"])))
        model = build_classifier(config)
        if builder:
            _BUILDERS[builder["kind"]](model, builder)
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptFileError(f"{opened.name}: its config.json or metadata cannot be used ({error})") from None
    weights = load(base, opened, framework="torch")
    own = {plain_name(name): value for name, value in model.state_dict().items()}
    missing = sorted(set(own) - set(weights) - _tied(own, weights))
    if missing:
        raise CorruptFileError(f"{opened.name}: the result lacks the tensor {missing[0]!r}")
    with torch.no_grad():
        model.to(weights[next(name for name in own if own[name].is_floating_point())].dtype)
        for name, value in model.state_dict().items():
            if plain_name(name) in weights:
                value.copy_(weights[plain_name(name)])
    return TaskModel(model.eval(), load_tokenizer(base), labels, max_length, pairs)


def _tied(own: dict[str, torch.Tensor], weights: dict[str, Any]) -> set[str]:
    """Name tensors that share their memory with one that is there."""
    there = {value.data_ptr() for name, value in own.items() if name in weights}
    return {name for name, value in own.items() if value.data_ptr() in there}


@dataclass(frozen=True)
class Answers:
    """What a model says of texts: the number of each one's likeliest label, and how right that is.

    `loss` is the mean cross-entropy, `accuracy` the share of right ones; `finite` says whether all logits are numbers.
    """

    likeliest: tuple[int, ...]
    loss: float
    accuracy: float
    finite: bool


def ask(model: nn.Module, data: Encoded, tokenizer: Any) -> Answers:
    """Let a model tell the labels of at least one text; it is left in evaluation mode."""
    likeliest = torch.empty(len(data), dtype=torch.int64)
    losses = torch.empty(len(data), dtype=torch.float64)
    finite = True
    model.eval()
    with torch.inference_mode():
        for chosen in sorted_batches(data, EVALUATION_BATCH):
            batch = collate(data, chosen, tokenizer)
            labels = batch.pop("labels")
            logits = model(**batch).logits
            likeliest[chosen] = logits.argmax(-1)
            losses[chosen] = nn.functional.cross_entropy(logits.double(), labels, reduction="none")
            finite &= bool(logits.isfinite().all())
    right = likeliest == torch.tensor(data.labels)
    return Answers(tuple(likeliest.tolist()), float(losses.mean()), float(right.double().mean()), finite)


def require_metrics() -> None:
    """Raise `MissingDependencyError` without scikit-learn."""
    if importlib.util.find_spec("sklearn") is None:
        raise MissingDependencyError("scikit-learn", "train", "the trainer's scores")


def scores(truth: Sequence[int | str], predicted: Sequence[int | str]) -> dict[str, float]:
    """Accuracy, macro-averaged F1 and Matthews' correlation. Raises `MissingDependencyError`."""
    require_metrics()
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

    return {
        "accuracy": float(accuracy_score(truth, predicted)),
        "f1": float(f1_score(truth, predicted, average="macro", zero_division=0)),
        "mcc": float(matthews_corrcoef(truth, predicted)),
    }
