"""What every layout's writer offers: a checkpoint whose tensors are known beforehand, whole or not at all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Any, Self

import numpy.typing as npt


class CheckpointWriter(ABC):
    """A context manager that publishes the checkpoint when its body succeeds and leaves nothing otherwise."""

    @abstractmethod
    def write(self, name: str, offset: int, data: npt.NDArray[Any]) -> None:
        """Write `data` (1-D words) at byte `offset` of tensor `name`.

        Every byte of every tensor arrives exactly once, the pieces of one tensor in order; pieces of
        different tensors may arrive from different threads at the same time. Tensors without bytes get no call.
        """

    @abstractmethod
    def publish(self) -> None:
        """Make the finished checkpoint appear under its name."""

    @abstractmethod
    def discard(self) -> None:
        """Remove everything written so far."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.publish()
        else:
            self.discard()
