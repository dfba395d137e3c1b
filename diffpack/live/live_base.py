"""The base as a module holds it: its tensors under the base's names, as they were before any task was put there."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from diffpack.checkpoints import Checkpoint, CheckpointLike, open_checkpoint
from diffpack.checkpoints.base import digests_of
from diffpack.diff.naming import Naming, find_naming
from diffpack.errors import UsageError, WrongBaseError
from diffpack.live.module_words import FileWords, ModuleCheckpoint, ModuleWords
from diffpack.live.places import Place
from diffpack.live.switch import Switch
from diffpack.support.inputs import Inputs
from diffpack.support.names import listed, printable
from diffpack.support.parallel import run_all
from diffpack.tensors.digests import DIGEST_BYTES, combine, tensor_digest
from diffpack.tensors.dtypes import CONVERTIBLE, Words
from diffpack.tensors.info import TensorInfo, blocks
from diffpack.tensors.reference import convert
from diffpack.tensors.word_source import WordSource


class LiveBase(Checkpoint):
    """A module's base, checked once: `fingerprint`, the tensors' digests, and where in the module each has its place.

    With `files` it is their checkpoint, which the module must hold, perhaps under other prefixes, perhaps not all of
    it; without, the module's own state. Words are read from the module, those it does not hold as they are from the
    files. With `cast` the module may hold floats in another dtype, each rounded once.

    Raises `WrongBaseError` if the module holds other bits, dtypes or shapes than the files, or nothing of them, and as
    `open_checkpoint` does.
    """

    layout = "memory"

    def __init__(
        self,
        places: Mapping[str, Place],
        switch: Switch,
        kind: str,
        files: CheckpointLike | None = None,
        *,
        cast: bool = False,
        threads: int | None = None,
    ) -> None:
        super().__init__(f"the {kind} in memory")
        self.cast = cast
        self.places = places
        self._switch = switch
        self._module = ModuleCheckpoint(places, switch, self.source)
        self._files: Checkpoint = self._module if files is None else open_checkpoint(files)
        self._inputs = Inputs(self._files.files)
        self.live = files is None
        if cast and files is None:
            raise UsageError("cast=True needs base=: the files tell what the module's values were rounded from")
        with self._inputs.unchanged():
            of_files = digests_of(self._files, self._files.tensors, threads)
        self.fingerprint = combine(self._files.tensors, of_files)
        self._digests = {name: digest[:DIGEST_BYTES] for name, digest in of_files.items()}
        self.naming = self._found()
        self._names: dict[Place, list[str]] = {}
        for name in self._files.tensors:
            if (place := self.place(name)) is not None:
                self._names.setdefault(place, []).append(name)
        self._check(of_files, threads)

    def _found(self) -> Naming:
        """How the module calls the base's tensors."""
        if self._files is self._module:
            return Naming({name: name for name in self.places}, (), True)
        return find_naming(self._module, (), self._files.tensors, self._digests.get, live=True)

    def _check(self, of_files: Mapping[str, bytes], threads: int | None) -> None:
        if self._files is self._module:
            return
        wrong = {}
        held = []
        for name, info in self._files.tensors.items():
            place = self.place(name)
            if place is None:
                continue
            there = place.words.info
            castable = self.cast and {info.dtype.name, there.dtype.name} <= CONVERTIBLE
            if there.shape != info.shape:
                continue  # grown or cut: a place for a task that resizes it
            if there.dtype != info.dtype and not castable:
                wrong[name] = f"is {there}, not {info}"
            else:
                held.append(name)
        found = run_all([partial(self._holds, name, of_files[name]) for name in held], threads)
        wrong |= {name: "holds other values" for name, same in zip(held, found, strict=True) if not same}
        if not wrong and held:
            return
        what = listed([f"{printable(name)} {text}" for name, text in wrong.items()])
        what = what or "none of its tensors is there, under these names and shapes"
        castable = not self.cast and any(text.startswith("is ") for text in wrong.values())
        advice = "; load it in the base's dtype, or give cast=True: results are then rounded once" if castable else ""
        raise WrongBaseError(f"{self.source} is not {self._files.source}: {what}{advice}", tuple(wrong))

    def _holds(self, name: str, digest: bytes) -> bool:
        """Whether the module holds a base tensor, in its own dtype."""
        place = self.place(name)
        assert place is not None
        info, there = self._files.info(name), place.words.info
        live = ModuleWords(place, self._switch)
        if there == info:
            return tensor_digest(live) == digest
        source = self._files.word_source(name)
        return all(
            np.array_equal(live[start:stop], convert(source[start:stop], info.dtype, there.dtype))
            for start, stop in blocks(live.size)
        )

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """The base's tensors."""
        return self._files.tensors

    def place(self, name: str) -> Place | None:
        """The place of a base tensor in the module, perhaps of another shape or dtype; None without one."""
        return self.places.get(self.naming.view.get(name, ""))

    def held(self, name: str) -> Place | None:
        """The place that holds a base tensor as it is, or rounded; None without one."""
        place = self.place(name)
        return place if place is not None and place.words.info.shape == self.info(name).shape else None

    def names_at(self, place: Place) -> list[str]:
        """The base's names of the tensors a place holds."""
        return self._names.get(place, [])

    def module_words(self, place: Place) -> ModuleWords:
        """The words of a place as they were before any task was put there."""
        return ModuleWords(place, self._switch)

    def digest(self, name: str) -> bytes:
        """The 16-byte digest of a base tensor."""
        return self._digests[name]

    def words(self, name: str) -> Words:
        """A base tensor's words."""
        source = self.word_source(name)
        return source[0 : source.size]

    def word_source(self, name: str) -> WordSource:
        """The same, to be read part by part."""
        info = self.info(name)
        place = self.place(name)
        if place is None or place.words.info != info:
            return FileWords(self._files.word_source(name), self._inputs)
        return ModuleWords(place, self._switch)
