"""What another tool's file changes, as a diff of the base it is for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from diffpack.bridges.bridge import Import
from diffpack.checkpoints.base import digests_of
from diffpack.diff.entries import Entry, exact_entry, write_entries
from diffpack.diff.group_decoder import Changes
from diffpack.diff.summary import UNKNOWN_FINGERPRINT, base_summary, new_manifest, result_summary
from diffpack.errors import CorruptFileError, UsageError, WrongBaseError
from diffpack.format.manifest import to_json
from diffpack.format.values.exact import EXACT
from diffpack.format.values.floats import F32
from diffpack.format.writer import ContainerWriter
from diffpack.result.seal import with_result_fingerprint
from diffpack.support.names import listed, printable
from diffpack.support.parallel import run_in_order
from diffpack.tensors.digests import combine
from diffpack.tensors.dtypes import Positions, Words
from diffpack.tensors.info import TensorInfo


@dataclass(frozen=True)
class Whole:
    """A tensor as it is after the change: stored exactly."""

    info: TensorInfo
    words: Words


@dataclass(frozen=True)
class Added:
    """Floats to add at sorted, unique positions (None: everywhere, in C order): stored as float32, labelled lossy."""

    positions: Positions | None
    values: npt.NDArray[Any]


BaseTensor = tuple[TensorInfo, Words]
Make = Callable[[BaseTensor | None], Whole | Added]
"""Makes one tensor's change from the base tensor of its name, if there is one. Called in any order, from threads."""


def write_patch(
    job: Import, file: BinaryIO, changes: Mapping[str, Make], recipe: Mapping[str, str], expected: str | None = None
) -> None:
    """Write the diff that makes `changes` (by the names the other tool uses) to the job's base.

    Holds a few tensors at a time. `Whole` tensors the base lacks are new ones. Raises `WrongBaseError` if a tensor to
    add to is missing, or the result's fingerprint is not the `expected` one, `UsageError` if differences are added to
    other tensors than floats, and whatever the changes raise.
    """
    patch = _Patch(job, changes)
    writer = ContainerWriter(file)
    infos = {name: job.needed_base.tensors[name] for name in patch.names if name in job.needed_base.tensors}
    groups = write_entries(
        writer, patch.entries(), job.profile, threads=job.threads, progress=job.progress,
        total=sum(info.nbytes for info in infos.values()),
    )  # fmt: skip
    base = job.needed_base
    exact = not patch.added
    fingerprint = combine(patch.tensors, patch.result_digests) if exact else UNKNOWN_FINGERPRINT
    manifest = new_manifest(
        base_summary(combine(base.tensors, patch.digests), base.tensors),
        result_summary(fingerprint, patch.tensors),
        groups,
        exact=exact,
        metadata=job.metadata,
        recipe={"values": EXACT.id if exact else F32.id, "imported": job.format, **recipe},
    )
    if not exact:
        manifest = with_result_fingerprint(file, writer, manifest, base, job.threads)
    actual = manifest.result.fingerprint
    if expected is not None and actual != expected:
        raise WrongBaseError(f"{job.source}: should lead to {expected}, and leads from this base to {actual}")
    writer.finish(to_json(manifest))


class _Patch:
    """The changes under way, under the base's own names, and what is known of the result so far."""

    def __init__(self, job: Import, changes: Mapping[str, Make]) -> None:
        base = job.needed_base
        self._job = job
        view = job.view()
        self._changes = {view.get(name, name): make for name, make in changes.items()}
        if len(self._changes) < len(changes):
            raise UsageError(f"{job.source}: two of its tensors go by one name in the base")
        self.names = sorted(self._changes)
        self.digests = digests_of(base, base.tensors, job.threads)
        self.result_digests = dict(self.digests)
        self.tensors = dict(base.tensors)
        self.added = False

    def entries(self) -> Iterator[Entry]:
        """Make the records in order of name, without those that change nothing."""
        made = run_in_order((partial(self._make, name) for name in self.names), self._job.threads)
        for added, entry in made:
            self.added = self.added or added
            self.tensors[entry.name] = entry.info
            if entry.digest is not None:
                self.result_digests[entry.name] = entry.digest
            if not entry.unchanged:
                yield entry

    def _make(self, name: str) -> tuple[bool, Entry]:
        """Make one record; say whether it adds floats."""
        base = self._job.needed_base
        before = (base.info(name), base.words(name)) if name in base.tensors else None
        change = self._changes[name](before)
        if isinstance(change, Whole):
            return False, exact_entry(name, change.info, change.words, before)
        where = f"{self._job.source}: {printable(name)}"
        if before is None:
            raise WrongBaseError(f"{where}: the base has no such tensor to add to", (name,))
        return True, self._added(name, before[0], change, where)

    def _added(self, name: str, info: TensorInfo, change: Added, where: str) -> Entry:
        if not info.dtype.arithmetic:
            raise UsageError(f"{where}: differences are not added to {info.dtype.name} tensors")
        with np.errstate(over="ignore", invalid="ignore"):
            values = change.values.astype(np.float32, copy=False)
        if not np.isfinite(values).all():
            raise CorruptFileError(f"{where}: a difference that is not finite")
        numbers = np.where(values == 0, np.int32(0), F32.numbers(values))
        parts = (Changes(0, info.words, change.positions, numbers),) if info.words else ()
        return Entry(name, info, info, self.digests[name], None, parts, F32)


def overwritten(base: BaseTensor, positions: Positions, words: Words) -> Whole:
    """The base tensor with other words at some positions."""
    info, before = base
    result = np.array(before)
    result[positions] = words
    return Whole(info, result)


def sorted_positions(
    positions: npt.NDArray[Any], count: int, where: str
) -> tuple[Positions, npt.NDArray[np.int64] | None]:
    """Check positions from a file: inside a tensor of `count` words, each once; sort them.

    Gives them as int64, and the order that sorts what stands beside them (None: as it is). Raises `CorruptFileError`.
    """
    if positions.ndim != 1 or positions.dtype.kind not in "iu":
        raise CorruptFileError(f"{where}: positions are a list of integers, not {positions.dtype}{positions.shape}")
    if not positions.size:
        return np.empty(0, np.int64), None
    lowest, highest = int(positions.min()), int(positions.max())
    if lowest < 0 or highest >= count:
        hint = " (int32 positions end at 2^31)" if lowest < 0 and positions.dtype.itemsize == 4 else ""
        wrong = lowest if lowest < 0 else highest
        raise CorruptFileError(f"{where}: the position {wrong} is outside its {count} entries{hint}")
    places = positions.astype(np.int64, copy=False)
    order = None
    if (places[1:] <= places[:-1]).any():
        order = np.argsort(places, kind="stable")
        places = places[order]
        if (places[1:] == places[:-1]).any():
            raise CorruptFileError(f"{where}: a position stands there twice")
    return places, order


def needed(base: BaseTensor | None, where: str) -> BaseTensor:
    """The base tensor. Raises `WrongBaseError` if there is none."""
    if base is None:
        raise WrongBaseError(f"{where}: the base has no such tensor (rename rules lead from its names to other ones)")
    return base


def refuse_missing(job: Import, names: Mapping[str, Any]) -> None:
    """Raise `WrongBaseError` if the base lacks tensors the source changes, naming them."""
    view = job.view()
    missing = [name for name in names if name not in view]
    if missing:
        which = listed([printable(name) for name in sorted(missing)])
        raise WrongBaseError(
            f"{job.source}: the base has no tensors of these names: {which} (rename rules lead from its names to them)",
            tuple(sorted(missing)),
        )
