"""TaskSwitcher: one model in memory, one base, many tasks, switched in place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from torch import Tensor, nn

from diffpack.checkpoints import CheckpointLike
from diffpack.checkpoints.memory import is_module
from diffpack.diff.diff import DiffLike
from diffpack.errors import UsageError
from diffpack.live.check import check_module
from diffpack.live.decode import tensors_of
from diffpack.live.lease import Leases
from diffpack.live.live_base import LiveBase
from diffpack.live.mixed.changed import prepared
from diffpack.live.mixed.mix import mix
from diffpack.live.patch import BASE, Patch
from diffpack.live.places import find_places
from diffpack.live.switch import Switch
from diffpack.live.tasks import Task, Tasks, Usage, Version
from diffpack.support.names import listed

DECODED_BYTES = 128 << 20
"""Bytes of decoded tasks that are kept unless told otherwise."""


class TaskSwitcher:
    """Puts tasks into a model in memory and takes them out again, exact to the bit.

    `model` is any `torch.nn.Module` that holds the base's weights, on any devices. `base` is the checkpoint its tasks
    were made from: the module is compared with it once, tensor by tensor; without it the module as it is now is the
    base. Names may have another prefix in the module, which may hold more than the base, and less. `cast` lets the
    module hold floats in another dtype than the base: results are then rounded once to that dtype. `decoded_bytes`
    bounds what decoded tasks take in memory, beside the pinned ones, the one in the model, and one more.

    Only words that differ are written. Parameters and buffers keep their identity and memory: compiled code, CUDA
    graphs, optimisers and tied weights stay valid. Who else writes into tensors a task touches is found out at the next
    switch, and refused. Safe from several threads.

    Raises `WrongBaseError` if the module does not hold the base, `UnsupportedCheckpointError` for tensors without plain
    values here (sharded, quantised, on the meta device), and as `open_checkpoint` does.
    """

    def __init__(
        self,
        model: nn.Module,
        base: CheckpointLike | None = None,
        *,
        cast: bool = False,
        decoded_bytes: int = DECODED_BYTES,
        threads: int | None = None,
    ) -> None:
        if not is_module(model):
            raise UsageError(f"a TaskSwitcher takes a torch.nn.Module, not a {type(model).__name__}")
        self.model = model
        self._switch = Switch()
        self._base = LiveBase(find_places(model), self._switch, type(model).__name__, base, cast=cast, threads=threads)
        self._tasks = Tasks(self._base, decoded_bytes)
        self._leases = Leases()
        self._of_base = Version(self._base.fingerprint, 0)
        self._resident: tuple[Task | None, Patch] = (None, BASE)
        self._standing: Task | None = None
        self._mixed = prepared(decoded_bytes)

    def add(self, name: str, diff: DiffLike) -> Version:
        """Add a task: a path, the bytes of a diff, or an opened one. Give the version it will have.

        Only the manifest is read; a file is opened again when it is used, and must be the same then. A name that is
        there already gets the new diff, with another version; if it stands in the model, that stays as it is until
        the next `use`. Raises `WrongBaseError` for a diff of another base, and as `diffpack.open` does.
        """
        return self._tasks.add(name, diff)

    def remove(self, name: str) -> None:
        """Forget a task; what stands in the model stays. Raises `UsageError` for an unknown name."""
        self._tasks.remove(name)

    @property
    def names(self) -> list[str]:
        """The tasks' names, in the order they were added."""
        return self._tasks.names

    def __contains__(self, name: object) -> bool:
        return name in self._tasks

    def __len__(self) -> int:
        return len(self._tasks.names)

    @property
    def version(self) -> Version:
        """What the model holds now: the key for caches of what was computed with it."""
        return self._version(self._stands()[0])

    @property
    def current(self) -> str | None:
        """The name of the task the model holds now, None for the base."""
        standing = self._stands()[0]
        return None if standing is None else standing.name

    @property
    def notes(self) -> list[str]:
        """Remarks for people, of the base and of the task that stands in the model."""
        return [*self._base.notes, *self._stands()[1].notes]

    def _stands(self) -> tuple[Task | None, Patch]:
        """What stands in the model. Raises `UsageError` after a switch that could be neither ended nor undone."""
        patch = self._switch.patch
        if patch is None:
            raise UsageError("the last switch was cut off half-way: `use` a task, or None for the base, which mends it")
        return self._standing, patch

    def _version(self, task: Task | None) -> Version:
        return self._of_base if task is None else task.version

    def _decoded(self, name: str | None) -> tuple[Task | None, Patch]:
        if name is None:
            return None, BASE
        task = self._tasks[name]
        return task, self._tasks.patch(task)

    def _put(self, task: Task | None, patch: Patch) -> None:
        self._switch.to(patch)
        self._standing = task

    def use(self, name: str | None) -> Version:
        """Put a task into the model to stay, None the base. Waits until nobody uses it under a lease (`task`).

        The task is decoded first: whatever is wrong with it, the model keeps what it held. Raises `UsageError` for an
        unknown name, inside a `with` block of this thread, if somebody else wrote into the tensors it touches, and
        where the module cannot hold the result (tied tensors that differ, another dtype); `CorruptFileError`.
        """
        task, patch = self._decoded(name)
        self._leases.acquire(self._version(task).added, lambda: self._put(task, patch), alone=True)
        self._resident = (task, patch)
        self._leases.release(lambda: None)
        return self._version(task)

    @contextmanager
    def task(self, name: str | None) -> Iterator[Version]:
        """Hold the model as a task (None: the base) for a `with` block; others that want the same share it.

        Who wants another one waits, in the order they came; after the last block the model is what `use` made it.
        Raises as `use` does.
        """
        task, patch = self._decoded(name)
        self._leases.acquire(self._version(task).added, lambda: self._put(task, patch))
        try:
            yield self._version(task)
        finally:
            self._leases.release(self._back)

    @contextmanager
    def mixed(self, tasks: Sequence[str | None]) -> Iterator[list[Version]]:
        """Hold the model so that each row of a batch is of its own task, named here row by row (None: the base).

        What the model computes in the `with` block, in this thread, must have as many rows, as the first dimension of
        what goes in. Products with the base are computed once for all rows, beside them what each task changes; the
        answers equal those of runs by task within float rounding. There are no gradients. Nobody else uses the model
        meanwhile. Gives the version of each row.

        What is prepared of tasks is kept up to `decoded_bytes` beside the decoded ones. Raises `UsageError` naming the
        module that cannot be mixed (see `diffpack.live.row_by_row`), as the block begins or from the model's forward;
        for a task with tensors of another shape than the model; and as `use` does. What has no place in the model, a
        head, stays out as with `task`.
        """
        if isinstance(tasks, str) or not tasks:
            raise UsageError("mixed takes a list: one task's name for each row of the batch, None for the base")
        decoded = {name: self._decoded(name) for name in dict.fromkeys(tasks)}
        for name, (_, patch) in decoded.items():
            if patch.misfits:
                raise UsageError(
                    f"task {name!r} has tensors of another shape than the model ({listed(list(patch.misfits))}), which "
                    "a mixed batch would compute without: load the model with their shapes"
                )
        versions = {name: self._version(task) for name, (task, _) in decoded.items()}
        self._leases.acquire(object(), lambda: self._put(None, BASE), alone=True)
        try:
            with mix(self.model, [(versions[name].added, decoded[name][1]) for name in tasks], self._mixed):
                yield [versions[name] for name in tasks]
        finally:
            self._leases.release(self._back)

    def _back(self) -> None:
        self._put(*self._resident)

    def tensors(self, name: str | None) -> dict[str, Tensor]:
        """The tensors of a task's result that differ from the base and have no place in the module, by their names.

        New and resized ones go into the module where it has one of their name and shape. They are decoded anew at each
        call, as tensors in the processor's memory.
        """
        task, patch = self._decoded(name)
        if task is None:
            return {}
        with task.opened() as diff:
            return tensors_of(diff, self._base, patch.elsewhere)

    def pin(self, name: str) -> None:
        """Decode a task now and keep it decoded, whatever the limit."""
        self._tasks.pin(name)

    def unpin(self, name: str) -> None:
        """Let a pinned task go like any other."""
        self._tasks.unpin(name)

    def prefetch(self, name: str) -> Future[None]:
        """Decode a task in a thread, so that the next `use` finds it; the future ends when it is there."""
        return self._tasks.prefetch(name)

    def evict(self, name: str) -> bool:
        """Let go of a decoded task, pinned or not; say whether there was one."""
        return self._tasks.evict(name)

    def usage(self) -> Usage:
        """What is held in memory."""
        return self._tasks.usage()

    def verify(self) -> int:
        """Hash what the model holds and compare: changed tensors with their diff's digests, all others with the base's.

        Give how many tensors were told to be right. Nobody switches meanwhile. Raises `ResultMismatchError` and names
        those that differ; `UsageError` for a model that is cast, whose bits no diff records.
        """
        self._leases.acquire(object(), lambda: None, alone=True)
        try:
            standing, patch = self._stands()
            if standing is None:
                return check_module(self._base, patch, None)
            with standing.opened() as diff:
                return check_module(self._base, patch, diff)
        finally:
            self._leases.release(lambda: None)

    def close(self) -> None:
        """Put the base back, forget all tasks, close files."""
        self.use(None)
        self._tasks.close()
        self._base.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        standing = None if self._standing is None else self._standing.name
        return f"TaskSwitcher({type(self.model).__name__}, {len(self)} tasks, now {standing!r})"
