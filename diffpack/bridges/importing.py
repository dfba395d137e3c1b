"""What another tool's file changes, as a diff of the base it is for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from diffpack.algebra.sums import Sums
from diffpack.bridges.bridge import Import
from diffpack.checkpoints.base import digests_of
from diffpack.diff.entries import Entry, exact_entry, factor_entry, write_entries
from diffpack.diff.group_decoder import Changes
from diffpack.diff.summary import UNKNOWN_FINGERPRINT, base_summary, new_manifest, result_summary
from diffpack.errors import CorruptFileError, UsageError, WrongBaseError
from diffpack.format.factors.product import Factors
from diffpack.format.manifest import to_json
from diffpack.format.values.exact import EXACT
from diffpack.format.values.floats import F32
from diffpack.format.values.summed import SUMMED
from diffpack.format.writer import ContainerWriter
from diffpack.result.seal import with_result_fingerprint
from diffpack.support.names import listed, printable
from diffpack.support.parallel import run_in_order
from diffpack.tensors.digests import combine
from diffpack.tensors.dtypes import Positions, Words
from diffpack.tensors.info import TensorInfo
from diffpack.tensors.reference import Reference


@dataclass(frozen=True)
class Whole:
    """A tensor as it is after the change: stored exactly.

    `lossy` says that the source does not hold it bit for bit: it was added up or rounded here.
    """

    info: TensorInfo
    words: Words
    lossy: bool = False


@dataclass(frozen=True)
class Added:
    """Floats to add at sorted, unique positions (None: everywhere, in C order): stored as float32, labelled lossy."""

    positions: Positions | None
    values: npt.NDArray[Any]


@dataclass(frozen=True)
class Factored:
    """Low-rank factors, whose product is to be added everywhere: stored as they are, labelled lossy.

    Whoever makes it has seen that the sums are finite in the base's dtype.
    """

    factors: Factors


BaseTensor = tuple[TensorInfo, Words]
Change = Whole | Added | Factored
Make = Callable[[BaseTensor | None], Change]
"""Makes one tensor's change from the base tensor of its name, if there is one. Called in any order, from threads."""


def write_patch(
    job: Import,
    file: BinaryIO,
    changes: Mapping[str, Make],
    recipe: Mapping[str, str],
    expected: str | None = None,
    *,
    aliases: Mapping[str, str] | None = None,
    sums: Sums | None = None,
    says_nothing: bool = False,
) -> None:
    """Write the diff that makes `changes` (by the names the other tool uses) to the job's base.

    Holds a few tensors at a time. `Whole` tensors the base lacks are new ones; those in `aliases` are tied to another
    name instead. `sums` has watched what the changes add up. No changes at all are
    refused, unless the source itself `says_nothing` changes.

    Raises `WrongBaseError` if a tensor to add to is missing, or the result's fingerprint is not the `expected` one,
    `UsageError` if differences are added to other tensors than floats, if sums are beyond what a dtype holds, or if
    there is nothing to change, and whatever the changes raise.
    """
    if not changes and not says_nothing:
        raise UsageError(f"{job.source}: holds no tensors: as {job.format} it would change nothing")
    patch = _Patch(job, changes, aliases or {}, sums or Sums(job.clip))
    writer = ContainerWriter(file)
    infos = {name: job.needed_base.tensors[name] for name in patch.names if name in job.needed_base.tensors}
    groups = write_entries(
        writer, patch.entries(), job.profile, threads=job.threads, progress=job.progress,
        total=sum(info.nbytes for info in infos.values()),
    )  # fmt: skip
    patch.finish()
    base = job.needed_base
    exact = not patch.lossy
    fingerprint = combine(patch.tensors, patch.result_digests) if exact else UNKNOWN_FINGERPRINT
    manifest = new_manifest(
        base_summary(combine(base.tensors, patch.digests), base.tensors),
        result_summary(fingerprint, patch.tensors),
        groups,
        exact=exact,
        metadata=job.metadata,
        recipe={"values": patch.values, "imported": job.format, **recipe, **patch.sums.recipe()},
        aliases=patch.aliases,
    )
    if not exact:
        manifest, _ = with_result_fingerprint(file, writer, manifest, base, job.threads)
    actual = manifest.result.fingerprint
    if expected is not None and actual != expected:
        raise WrongBaseError(f"{job.source}: should lead to {expected}, and leads from this base to {actual}")
    writer.finish(to_json(manifest))


class _Patch:
    """The changes under way, under the base's own names, and what is known of the result so far.

    `values` says for people how they are stored, `lossy` that the result is not what the source holds.
    """

    def __init__(self, job: Import, changes: Mapping[str, Make], aliases: Mapping[str, str], sums: Sums) -> None:
        base = job.needed_base
        self._job = job
        self.sums = sums
        view = job.view()
        hidden = [name for name in changes if name not in view and name in base.tensors]
        kept = {name: make for name, make in changes.items() if name not in aliases}
        self._changes = {view.get(name, name): make for name, make in kept.items()}
        if hidden or len(self._changes) < len(kept):
            raise UsageError(f"{job.source}: two of its tensors go by one name in the base")
        self.aliases = {view.get(name, name): view.get(target, target) for name, target in aliases.items()}
        self.names = sorted(self._changes)
        self.digests = digests_of(base, base.tensors, job.threads)
        self.result_digests = dict(self.digests)
        self.tensors = dict(base.tensors)
        self.lossy = False
        self._codings: set[str] = set()
        self._changed: list[str] = []

    @property
    def values(self) -> str:
        """How most of what changes is stored: by factors, as float values, else in exact steps."""
        return next((coding for coding in (SUMMED.id, F32.id) if coding in self._codings), EXACT.id)

    def entries(self) -> Iterator[Entry]:
        """Make the records in order of name, without those that change nothing."""
        made = run_in_order((partial(self._make, name) for name in self.names), self._job.threads)
        for lossy, entry in made:
            self.lossy = self.lossy or lossy
            self._codings.add(entry.value_coding.id if entry.factors is None else SUMMED.id)
            self.tensors[entry.name] = entry.info
            if entry.digest is not None:
                self.result_digests[entry.name] = entry.digest
            if not entry.unchanged:
                self._changed.append(entry.name)
                yield entry

    def finish(self) -> None:
        """Refuse sums that are beyond a dtype; tie what is to be tied; note what people should know."""
        advice = "clip=True (--clip) ends them at the largest finite number, or give a base of a wider dtype"
        self.sums.refuse(str(self._job.source), advice)
        for name, target in self.aliases.items():
            self.tensors[name] = self.tensors[target]
            self.result_digests[name] = self.result_digests[target]
        self._job.notes.extend(self.sums.notes())
        if not self._changed:
            self._job.notes.append("changes nothing: the base has all of it already")
        for name in self._left_behind():
            self._job.notes.append(name)

    def _left_behind(self) -> Iterator[str]:
        """Say which matrices of the base equal a changed one and stay: a model that ties them would be torn apart."""
        base = self._job.needed_base.tensors
        moved = {self.digests[name]: name for name in self._changed if name in base and len(base[name].shape) > 1}
        for name, digest in sorted(self.digests.items()):
            if (
                name not in self._changes
                and name not in self.aliases
                and digest in moved
                and base[name] == base[moved[digest]]
            ):
                what = f"{printable(name)} equals {printable(moved[digest])} in the base, and does not change with it"
                yield f"{what}: right only for a model that keeps the two apart"

    def _make(self, name: str) -> tuple[bool, Entry]:
        """Make one record; say whether its result is another than the source holds."""
        base = self._job.needed_base
        before = (base.info(name), base.words(name)) if name in base.tensors else None
        change = self._changes[name](before)
        if isinstance(change, Whole):
            return change.lossy, exact_entry(name, change.info, change.words, before)
        where = f"{self._job.source}: {printable(name)}"
        if before is None:
            raise WrongBaseError(f"{where}: the base has no such tensor to add to", (name,))
        if isinstance(change, Factored):
            return True, factor_entry(name, before[0], self.digests[name], change.factors)
        return True, self._added(name, before, change, where)

    def _added(self, name: str, base: BaseTensor, change: Added, where: str) -> Entry:
        info, before = base
        values = checked(change, info, where)
        numbers = np.where(values == 0, np.int32(0), F32.numbers(values))
        parts = (Changes(0, info.words, change.positions, numbers),) if info.words else ()
        entry = Entry(name, info, info, self.digests[name], None, parts, F32)
        return self.sums.entry(entry, Reference(info, info, before))


def checked(change: Added, info: TensorInfo, where: str) -> npt.NDArray[np.float32]:
    """Values to add to a tensor, as float32. Raises `UsageError` (no floats are added to), `CorruptFileError`."""
    if not info.dtype.arithmetic:
        raise UsageError(f"{where}: differences are not added to {info.dtype.name} tensors")
    with np.errstate(over="ignore", invalid="ignore"):
        values: npt.NDArray[np.float32] = change.values.astype(np.float32, copy=False)
    if not np.isfinite(values).all():
        raise CorruptFileError(f"{where}: a difference that is not finite")
    return values


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
