"""Labelled texts tokenised, and cut into batches of like length."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Batch = dict[str, Tensor]
"""What a model is called with: `input_ids`, `attention_mask`, ..., and `labels`, each int64 with one row a text."""

_POOL_BATCHES = 50
"""Batches whose texts are sorted by length together: enough for hardly any padding, few enough to stay mixed."""


@dataclass(frozen=True)
class Encoded:
    """Tokenised texts: for each its lists of integers (`input_ids`, ...) without padding, and its label's number."""

    rows: tuple[Mapping[str, Sequence[int]], ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def length(self, at: int) -> int:
        """The number of tokens of a text."""
        return len(self.rows[at]["input_ids"])


def encode(
    texts: Sequence[str], pairs: Sequence[str], labels: Sequence[int], tokenizer: Any, max_length: int
) -> Encoded:
    """Tokenise texts (or pairs of texts), each cut to `max_length` tokens."""
    second = list(pairs) if pairs else None
    tokenised = tokenizer(list(texts), second, truncation=True, max_length=max_length)
    keys = [key for key in tokenised if key in tokenizer.model_input_names]
    rows = tuple({key: tokenised[key][at] for key in keys} for at in range(len(texts)))
    return Encoded(rows, tuple(labels))


def collate(data: Encoded, chosen: Sequence[int], tokenizer: Any) -> Batch:
    """Pad the chosen texts to the longest of them."""
    padded = tokenizer.pad([dict(data.rows[at]) for at in chosen], return_tensors="pt")
    return {**padded, "labels": torch.tensor([data.labels[at] for at in chosen])}


def epoch_order(data: Encoded, batch_size: int, seed: int) -> list[list[int]]:
    """Cut one epoch into batches: shuffled, sorted by length within pools, the batches shuffled again.

    The same seed gives the same batches, wherever training stopped before.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(data), generator=generator).tolist()
    pool = _POOL_BATCHES * batch_size
    batches = []
    for start in range(0, len(order), pool):
        members = sorted(order[start : start + pool], key=data.length)
        batches += [members[at : at + batch_size] for at in range(0, len(members), batch_size)]
    return [batches[at] for at in torch.randperm(len(batches), generator=generator).tolist()]


def sorted_batches(data: Encoded, batch_size: int) -> Iterator[list[int]]:
    """Cut all texts into batches from short to long, for evaluation."""
    order = sorted(range(len(data)), key=data.length)
    yield from (order[at : at + batch_size] for at in range(0, len(order), batch_size))
