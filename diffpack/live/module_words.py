"""What the words of a base in memory are read from: a module as it was before any task, and files beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from diffpack.checkpoints import Checkpoint
from diffpack.live.places import Place
from diffpack.live.switch import Switch
from diffpack.live.words import host_words
from diffpack.support.inputs import Inputs
from diffpack.tensors.dtypes import Positions, Words
from diffpack.tensors.info import TensorInfo
from diffpack.tensors.word_source import Part, WordSource


class ModuleWords:
    """The words of a place as they were before any task was put there (a `WordSource`), read part by part."""

    def __init__(self, place: Place, switch: Switch) -> None:
        self._place, self._switch = place, switch
        self.size = place.words.info.words
        self.dtype: np.dtype[Any] = place.words.info.dtype.word

    def __getitem__(self, part: Part, /) -> Words:
        """The words of a slice of step 1, or at positions; a copy."""
        return self._slice(part) if isinstance(part, slice) else self._at(part)

    def _slice(self, part: slice) -> Words:
        start, stop, _ = part.indices(self.size)
        memory = self._place.words
        with self._switch.lock:
            words = np.array(host_words(memory.slice(start, stop), self.dtype))
            before = self._switch.before(self._place)
        if before is None:
            return words
        kept = host_words(before[1], self.dtype)
        if before[0] is None:
            return kept[start:stop]
        written = before[0].cpu().numpy()
        low, high = np.searchsorted(written, [start, stop])
        words[written[low:high] - start] = kept[low:high]
        return words

    def _at(self, positions: Positions) -> Words:
        memory = self._place.words
        index = memory.index(positions)
        with self._switch.lock:
            words = host_words(memory.gather(index), self.dtype)
            before = self._switch.before(self._place)
        if before is None:
            return words
        kept = host_words(before[1], self.dtype)
        if before[0] is None:
            return kept[positions]
        written, wanted = before[0].cpu().numpy(), index.cpu().numpy()
        if written.size:
            at = written.searchsorted(wanted)
            both = written.take(at, mode="clip") == wanted
            words[both] = kept[at[both]]
        return words


class FileWords:
    """The words of a tensor of files that must stay what they were when they were hashed (a `WordSource`)."""

    def __init__(self, source: WordSource, inputs: Inputs) -> None:
        self._source, self._inputs = source, inputs
        self.size = source.size
        self.dtype: np.dtype[Any] = source.dtype

    def __getitem__(self, part: Part, /) -> Words:
        """The words of a part. Raises `CheckpointError` if a file is another by now."""
        words = self._source[part]
        self._inputs.check()
        return words


class ModuleCheckpoint(Checkpoint):
    """A module's places as a checkpoint in memory."""

    layout = "memory"
    live = True
    named_for_module = True

    def __init__(self, places: Mapping[str, Place], switch: Switch, source: str) -> None:
        super().__init__(source)
        self._places, self._switch = places, switch
        self._tensors = {name: place.words.info for name, place in places.items()}
        self.ties = {name: place.name for name, place in places.items() if name != place.name}

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """What the places are, by the module's names."""
        return self._tensors

    def words(self, name: str) -> Words:
        """A copy of a tensor's words."""
        self.info(name)
        return ModuleWords(self._places[name], self._switch)[:]

    def word_source(self, name: str) -> WordSource:
        """A tensor's words, to be read part by part."""
        self.info(name)
        return ModuleWords(self._places[name], self._switch)
