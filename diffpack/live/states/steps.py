"""Diffs of tensors in memory: of two states, or of one that is trained on, from step to step."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from diffpack.checkpoints.torch_tensors import as_tensor
from diffpack.diff.diff import Diff
from diffpack.diff.entries import Entry, check_profile, write_entries
from diffpack.diff.publish import write_diff
from diffpack.diff.summary import base_summary, new_manifest, result_summary
from diffpack.extraction.scan.gone import refuse_most_gone
from diffpack.format.manifest import to_json
from diffpack.format.writer import ContainerWriter
from diffpack.live.states.moved import Became, became
from diffpack.live.states.state import State, TensorsLike, is_here
from diffpack.live.words import TensorWords
from diffpack.support.inputs import Inputs
from diffpack.support.parallel import run_in_order
from diffpack.tensors.digests import combine, tensor_digest
from diffpack.tensors.dtypes import Words


def extract(
    before: TensorsLike,
    after: TensorsLike,
    output: str | os.PathLike[str] | None = None,
    *,
    profile: str = "compact",
    metadata: Mapping[str, str] | None = None,
    base_name: str | None = None,
    allow_removed: bool = False,
    threads: int | None = None,
    force: bool = False,
) -> Diff:
    """Store what became of tensors of torch as an exact diff: modules, their `state_dict()`, or tensors by name.

    Tensors are compared by name, as integers and on the device where `after` has them; only words that changed come to
    the host, and once each byte of `before`, since the format records digests (`Steps` remembers them, and goes on
    from step to step without). A tensor of which over a quarter changes comes whole, as do new ones and those of
    another dtype or shape. What `after` ties, the diff ties. The diff is what `diffpack.extract` would give the same
    result with: same inputs, same bytes, on any device; without `output` it lives in an unnamed temporary file.

    Nobody may write the tensors meanwhile. The names are the base's: to make a diff for a checkpoint's files, give the
    tensors that these hold. Raises `UsageError` (over half of the base is gone without `allow_removed`, an existing
    output without `force`, what is no tensor), `UnsupportedCheckpointError` for tensors without plain values here.
    """
    check_profile(profile)
    old, new = State(before), State(after)
    found: dict[str, Became] = {}
    about = _About(profile, dict(metadata or {}), base_name, allow_removed)
    return write_diff(output, Inputs([]), force, partial(_write, old, new, found, about, threads))


@dataclass(frozen=True)
class _About:
    """What a diff says beside its changes, and how."""

    profile: str
    metadata: dict[str, str]
    base_name: str | None
    allow_removed: bool


def _write(
    before: State, after: State, found: dict[str, Became], about: _About, threads: int | None, file: BinaryIO
) -> None:
    """Write the diff between two states; what became of each tensor is added to `found`."""
    removed = sorted(name for name in before.tensors if name not in after.tensors)
    if removed and not about.allow_removed:
        refuse_most_gone(before, after, _used(before, after))
    writer = ContainerWriter(file)
    own = sorted(name for name in after.tensors if name not in after.ties)
    groups = write_entries(writer, _entries(before, after, own, found, threads), about.profile, threads=threads)
    aliases = {}
    for name, first in sorted(after.ties.items()):
        digest = found[first].digest
        found[name] = Became(name, digest)
        if before.tensors.get(name) != after.info(name) or before.digest(name) != digest:
            aliases[name] = first
    of_base = {name: before.digest(name) for name in before.tensors}
    of_result = {name: item.digest for name, item in found.items()}
    manifest = new_manifest(
        base_summary(combine(before.tensors, of_base), before.tensors, about.base_name),
        result_summary(combine(after.tensors, of_result), after.tensors),
        groups,
        exact=True,
        metadata=about.metadata,
        recipe={},
        aliases=aliases,
        removed=removed,
    )
    writer.finish(to_json(manifest))


def _entries(
    before: State, after: State, names: Sequence[str], found: dict[str, Became], threads: int | None
) -> Iterator[Entry]:
    """The records of what changed, in order of name."""
    for item in run_in_order((partial(became, name, before, after) for name in names), threads):
        found[item.name] = item
        if item.entry is not None and not item.entry.unchanged:
            yield item.entry


def _used(before: State, after: State) -> set[str]:
    """The tensors of the base that the result still has: by their names, or under another one that was tied to it."""
    kept = {name for name in before.tensors if name in after.tensors and after.info(name).words}
    there = {before.ties.get(name, name) for name in kept}
    return kept | {name for name in before.tensors if before.ties.get(name, name) in there}


class Steps:
    """A model that is trained on, and the diffs from each state that was stored to the next.

    ::

        steps = diffpack.live.Steps(model)          # as it is now: the base
        ...                                         # train
        steps.extract(model, "step-1.dpk")          # from the base to now
        ...
        steps.extract(model, "step-2.dpk")          # from step 1 to now: its base is the result of step 1

    Keeps a copy of the tensors here, in the host's memory, with their digests; and of tensors on another device a copy
    there, unless `on_device` is false: they are then compared with the copy here, which goes there block by block.
    Either way only words that changed come to the host. Each diff is one link of a chain that `diffpack.compose` makes
    one. One that could not be written changes nothing here. Not for several threads at once.

    `fingerprint` is that of the state that the next diff is made from, `count` how many were made.
    """

    def __init__(self, tensors: TensorsLike, *, on_device: bool = True, threads: int | None = None) -> None:
        self._threads, self._on_device = threads, on_device
        self._kept = _Kept(State(tensors), on_device, threads)
        self.count = 0

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the tensors as they were last stored."""
        return self._kept.fingerprint

    def extract(
        self,
        tensors: TensorsLike,
        output: str | os.PathLike[str] | None = None,
        *,
        profile: str = "compact",
        metadata: Mapping[str, str] | None = None,
        allow_removed: bool = False,
        force: bool = False,
    ) -> Diff:
        """Store what became of the tensors since the last diff, and go on from there. Raises as `extract` does."""
        check_profile(profile)
        after, found = State(tensors), dict[str, Became]()
        about = _About(profile, dict(metadata or {}), None, allow_removed)
        body = partial(_write, self._kept, after, found, about, self._threads)
        diff = write_diff(output, Inputs([]), force, body)
        self._kept.become(after, found)
        self.count += 1
        return diff


class _Kept(State):
    """A state that was seen: its words here, its digests, and copies of what lies on other devices."""

    def __init__(self, seen: State, on_device: bool, threads: int | None) -> None:
        self._on_device = on_device
        names = [name for name in seen.tensors if name not in seen.ties]
        read = list(run_in_order((partial(_copied, seen, name) for name in names), threads))
        self._here = {name: words for name, (words, _) in zip(names, read, strict=True)}
        copies = {name: self._copy(seen, name) for name in names}
        super().__init__({name: copies[seen.ties.get(name, name)] for name in seen.tensors})
        self.source = "the tensors as they were"
        self._digests = {name: digest for name, (_, digest) in zip(names, read, strict=True)}

    def _copy(self, seen: State, name: str) -> Tensor:
        """A tensor of the kept words, where it is compared."""
        tensor = seen.given[name]
        if self._on_device and not is_here(tensor):
            return tensor.detach().clone(memory_format=torch.contiguous_format)
        return as_tensor(self._here[name], seen.info(name), name)

    @property
    def fingerprint(self) -> str:
        """The state's fingerprint."""
        return combine(self.tensors, {name: self.digest(name) for name in self.tensors})

    def words(self, name: str) -> Words:
        """A tensor's words, as they are kept here."""
        self.info(name)
        return self._here[self.ties.get(name, name)]

    def become(self, after: State, found: Mapping[str, Became]) -> None:
        """Keep what a state has become: changed words where those before were, other tensors whole."""
        names = [name for name in after.tensors if name not in after.ties]
        here: dict[str, Words] = {}
        copies: dict[str, Tensor] = {}
        taken: set[str] = set()
        for name in names:
            own = self.ties.get(name, name)
            if found[name].moved is None:
                here[name] = np.array(after.words(name))
            elif own in taken:  # what was tied is so no more
                here[name] = self._here[own].copy()
            else:
                here[name], copies[name] = self._here[own], self.given[own]
                taken.add(own)
        self._here = here
        for name in names:
            moved = found[name].moved
            if moved is not None:
                here[name][moved.positions] = moved.after
            if name not in copies:
                copies[name] = self._copy(after, name)
            elif moved is not None and copies[name].data_ptr() != here[name].ctypes.data:
                memory = TensorWords(copies[name], name)
                memory.scatter(memory.index(moved.positions), memory.integers(moved.after))
        super().__init__({name: copies[after.ties.get(name, name)] for name in after.tensors})
        self.source = "the tensors as they were"
        self._digests = {name: found[name].digest for name in names}


def _copied(seen: State, name: str) -> tuple[Words, bytes]:
    """A copy of a tensor's words here, and their digest."""
    words = np.array(seen.words(name))
    return words, tensor_digest(words)
