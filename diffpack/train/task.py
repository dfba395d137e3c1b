"""A task to be trained: the model, the data, and what was chosen."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from diffpack.errors import DivergedError
from diffpack.train.data import Batch, Encoded, collate, encode, epoch_order
from diffpack.train.labels import label_names
from diffpack.train.model import (
    body_parameters,
    load_classifier,
    load_tokenizer,
    plain_name,
    require_room,
    set_dropout,
    stored_tensors,
)
from diffpack.train.options import TrainOptions
from diffpack.train.selections.datafree import counts_of, rule_of
from diffpack.train.texts import Examples

STAGE_SEEDS = 64
"""Stages a seed has room for."""
_EPOCH_SEEDS = 1 << 20  # epochs a stage has room for
DEFAULT_BATCH = 32
"""Texts a batch where neither the user nor the method says otherwise."""


@dataclass
class Task:
    """What every stage of every method works on. The model changes while it is trained, the rest does not.

    `head` names the parameters of the head; `dtypes` what each tensor is stored as; `builder` says how the
    modules that a method adds are built again (empty if it adds none).
    """

    folder: str
    model: nn.Module
    tokenizer: Any
    head: list[str]
    labels: tuple[str, ...]
    dtypes: dict[str, torch.dtype]
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
        if chosen is None or options.coding == "exact":
            return None
        before = self.pretrained() if chosen.by_weight else self.body
        counts = counts_of(chosen, {name: before[name] for name in self.body}, self.budget)
        return str(chosen), {plain_name(name): counts.get(name, 0) for name in self.body}

    @property
    def steps(self) -> int:
        """Batches an epoch."""
        return -(-len(self.train) // self.batch_size)

    def batches(self, stage: int, epochs: int, start: int = 0) -> Iterator[Batch]:
        """The batches of a stage from number `start` on; the same ones for the same seed."""
        for epoch in range(start // self.steps, epochs):
            seed = (self.options.seed * STAGE_SEEDS + stage) * _EPOCH_SEEDS + epoch
            order = epoch_order(self.train, self.batch_size, seed)
            for chosen in order[max(0, start - epoch * self.steps) :]:
                yield collate(self.train, chosen, self.tokenizer)

    def pretrained(self) -> dict[str, Tensor]:
        """Load the parameters as they were before training, the head as drawn from the seed; without gradients."""
        state = torch.get_rng_state()
        model = load_classifier(self.folder, self.labels, self.options.seed).model
        torch.set_rng_state(state)
        return {name: value.detach() for name, value in model.named_parameters()}

    def result(self) -> dict[str, Tensor]:
        """The tensors a checkpoint of the model holds, rounded to what the base stores.

        Raises `DivergedError` if a number is not finite.
        """
        kept = {}
        for name, value in stored_tensors(self.model).items():
            if value.is_floating_point():
                kept[name] = value.to(self.dtypes.get(name, self.dtypes[""]))
                if not kept[name].isfinite().all():
                    raise DivergedError(f"{name!r} holds numbers that are not finite")
            else:
                kept[name] = value
        return kept


def make_task(
    folder: str | os.PathLike[str], train: Examples, dev: Examples, options: TrainOptions, batch_size: int | None
) -> Task:
    """Load the model and tokenise the data, whose two parts go together (`diffpack.train.preparation`).

    Raises `UsageError`, `CheckpointError`, `MissingDependencyError`.
    """
    names = label_names(train, dev)
    tokenizer = load_tokenizer(folder)
    loaded = load_classifier(folder, names, options.seed)
    model: Any = loaded.model
    if model.config.pad_token_id is None:  # it finds a text's last token by it
        model.config.pad_token_id = tokenizer.pad_token_id
    if options.dropout is not None:
        set_dropout(model, options.dropout)
    numbers = {label: at for at, label in enumerate(loaded.labels)}
    learn, score = (
        encode(part.texts, part.pairs, [numbers[label] for label in part.labels], tokenizer, options.max_length)
        for part in (train, dev)
    )
    require_room(model, max(part.length(at) for part in (learn, score) for at in range(len(part))))
    return Task(
        str(folder), model, tokenizer, loaded.head, loaded.labels, loaded.dtypes, learn, score, options,
        batch_size or DEFAULT_BATCH,
    )  # fmt: skip
