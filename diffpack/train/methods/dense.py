"""Whole tensors: full fine-tuning, the last layer, the head alone (feature-based transfer)."""

from __future__ import annotations

from collections.abc import Sequence

from diffpack.train.loop.stage import DenseStage, Stage
from diffpack.train.methods.defaults import FULL_LR, HEAD_LR, epochs_of, lr_of
from diffpack.train.selections.structure import layers
from diffpack.train.task import Task


def full(task: Task) -> Sequence[Stage]:
    """Train every parameter."""
    return [DenseStage(epochs_of(task.options), lr_of(task.options, FULL_LR), lambda task: list(task.body))]


def last_layer(task: Task) -> Sequence[Stage]:
    """Train the last layer, what follows it, and the head (the paper's "last layer")."""
    names = layers(task.model, task.head, 1)
    return [DenseStage(epochs_of(task.options), lr_of(task.options, FULL_LR), lambda _: names)]


def head_only(task: Task) -> Sequence[Stage]:
    """Train the head on frozen features."""
    return [DenseStage(epochs_of(task.options), lr_of(task.options, HEAD_LR), lambda _: ())]
