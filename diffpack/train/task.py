"""A task to be trained: the model, the data, and what was chosen."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from diffpack.train.data import Batch, Encoded, Examples, collate, encode, epoch_order, label_names
from diffpack.train.model import body_parameters, load_classifier, load_tokenizer, plain_name, set_dropout
from diffpack.train.options import TrainOptions
from diffpack.train.selections.datafree import counts_of, rule_of

_STAGE_SEEDS = 1 << 20  # seeds set aside for each stage; one an epoch
DEFAULT_BATCH = 32
"""Texts a batch where neither the user nor the method says otherwise."""


@dataclass
class Task:
    """What every stage of every method works on. The model changes while it is trained, the rest does not.

    `head` names the parameters of the new head; `builder` says how the modules that a method adds are built again
    ("" if it adds none).
    """

    folder: str
    model: nn.Module
    tokenizer: Any
    head: list[str]
    labels: tuple[str, ...]
    train: Encoded
    dev: Encoded
    options: TrainOptions
    batch_size: int
    builder: dict[str, Any] = field(default_factory=dict)

    @property
    def body(self) -> dict[str, nn.Parameter]:
        """The parameters outside the head: the pool that a density is a fraction of."""
        return body_parameters(self.model, self.head)

    @property
    def budget(self) -> int:
        """How many entries of the pool may change: density x entries, rounded, at least one."""
        return max(1, round(self.options.density * sum(value.numel() for value in self.body.values())))

    @cached_property
    def told(self) -> tuple[str, dict[str, int]] | None:
        """The rule by which the base or the seed tells what was trained, and how many entries of each stored tensor.

        None if the method or its selection is another, and with exact values: a diff of chosen words is called lossy.
        """
        options = self.options
        chosen = rule_of(options.selection, options.seed) if options.method == "sparse" else None
        if chosen is None or options.values == "exact":
            return None
        before = self.pretrained() if chosen.by_weight else self.body
        counts = counts_of(chosen, {name: before[name] for name in self.body}, self.budget)
        return str(chosen), {plain_name(name): counts.get(name, 0) for name in self.body}

    @property
    def steps(self) -> int:
        """Batches an epoch."""
        return -(-len(self.train) // self.batch_size)

    def batches(self, stage: int, epochs: int, start: int = 0) -> Iterator[Batch]:
        """Give the batches of a stage from number `start` on; the same ones for the same seed."""
        for epoch in range(start // self.steps, epochs):
            seed = (self.options.seed * 64 + stage) * _STAGE_SEEDS + epoch
            order = epoch_order(self.train, self.batch_size, seed)
            for chosen in order[max(0, start - epoch * self.steps) :]:
                yield collate(self.train, chosen, self.tokenizer)

    def pretrained(self) -> dict[str, Tensor]:
        """Load the parameters as they were before training, the head as drawn from the seed; without gradients."""
        state = torch.get_rng_state()
        model, _ = load_classifier(self.folder, self.labels, self.options.seed)
        torch.set_rng_state(state)
        return {name: value.detach() for name, value in model.named_parameters()}


def make_task(
    folder: str | os.PathLike[str], train: Examples, dev: Examples, options: TrainOptions, batch_size: int | None
) -> Task:
    """Load the model and tokenise the data. Raises `UsageError`, `CheckpointError`, `MissingDependencyError`."""
    labels = label_names(train, dev)
    tokenizer = load_tokenizer(folder)
    model, head = load_classifier(folder, labels, options.seed)
    if options.dropout is not None:
        set_dropout(model, options.dropout)
    numbers = {label: at for at, label in enumerate(labels)}
    encoded = [
        encode(part.texts, part.pairs, [numbers[label] for label in part.labels], tokenizer, options.max_length)
        for part in (train, dev)
    ]
    return Task(
        str(folder), model, tokenizer, head, labels, encoded[0], encoded[1], options, batch_size or DEFAULT_BATCH
    )
