"""Tasks on a small model in memory, and its answers for a batch, mixed and task by task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

import diffpack
from diffpack.live import TaskSwitcher
from tests.tools.live_tasks import changed, tasks, write

Answer = Callable[[Sequence[int]], Tensor]
"""What a model answers for some rows of a batch."""

NAMES = ["b", None, "a", "head", "c", "a", "b"]
"""The tasks of a batch's rows, shuffled."""


def switcher_of(model: nn.Module, folder: Path, head: str | None = None) -> TaskSwitcher:
    """A switcher with the tasks a, b, c, each changing some of every parameter, and "head" with that tensor anew."""
    base = write(folder / "base.safetensors", model.state_dict())
    switcher = TaskSwitcher(model, base)
    for name, file in zip("abc", tasks(base, folder), strict=True):
        switcher.add(name, file)
    if head is not None:
        state = changed(model.state_dict(), 9, 0.1)
        drawn = torch.randn(state[head].shape, generator=torch.Generator().manual_seed(9)) * 0.3
        state[head].copy_(drawn)
        add(switcher, "head", folder, state)
    return switcher


def add(switcher: TaskSwitcher, name: str, folder: Path, state: dict[str, Tensor]) -> None:
    """Add the task that makes the base of `switcher_of` in a folder to a state."""
    tuned = write(folder / f"{name}.safetensors", state)
    diffpack.extract(folder / "base.safetensors", tuned, folder / f"{name}.dpk")
    switcher.add(name, folder / f"{name}.dpk")


def by_task(switcher: TaskSwitcher, names: Sequence[str | None], answer: Answer) -> Tensor:
    """The answers for all rows, each task run by itself on its rows."""
    rows: dict[int, Tensor] = {}
    for name in dict.fromkeys(names):
        mine = [row for row, other in enumerate(names) if other == name]
        with switcher.task(name), torch.no_grad():
            rows |= dict(zip(mine, answer(mine), strict=True))
    return torch.stack([rows[row] for row in range(len(names))])


def mixed(switcher: TaskSwitcher, names: Sequence[str | None], answer: Answer) -> Tensor:
    """The answers for all rows, mixed."""
    with switcher.mixed(names):
        return answer(range(len(names)))


def apart(found: Tensor, expected: Tensor) -> float:
    """How far answers are apart, at most, relative to the largest."""
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    return float((found.double() - expected.double()).abs().max() / expected.double().abs().max())


def answers(model: nn.Module, *given: Tensor) -> Answer:
    """A model's answers, by rows of what it is given."""

    def answer(rows: Sequence[int]) -> Tensor:
        found: Tensor = model(*(x[list(rows)] for x in given))
        return found

    return answer


def untouched(model: nn.Module) -> bool:
    """Whether no stand-in or hook is left in a model."""
    left = [name for module in model.modules() for name in ("forward", "compute_bias") if name in vars(module)]
    return not left and not model._forward_pre_hooks
