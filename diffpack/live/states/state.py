"""Named tensors of torch as a checkpoint, read where they lie: on any device, part by part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from diffpack.checkpoints import Checkpoint
from diffpack.checkpoints.memory import EXTRA_STATE, STATE_MARK, is_tensor
from diffpack.checkpoints.torch_tensors import tensor_info
from diffpack.errors import UnsupportedCheckpointError, UsageError
from diffpack.live.overlaps import memory_of
from diffpack.live.words import TensorWords, host_words
from diffpack.support.names import printable
from diffpack.tensors.digests import tensor_digest
from diffpack.tensors.dtypes import Words
from diffpack.tensors.info import TensorInfo
from diffpack.tensors.word_source import Part, WordSource

TensorsLike = nn.Module | Mapping[str, Tensor]
"""What functions here take: a module, what its `state_dict()` gives, or tensors by name."""


def is_here(tensor: Tensor) -> bool:
    """Whether a tensor lies in the host's memory."""
    return tensor.device.type == "cpu"


class State(Checkpoint):
    """Tensors by name: those of a module's `state_dict()`, or of a mapping; nothing is copied before it is read.

    Of a `state_dict()` extra state that is no tensor is left out. Raises `UsageError` for what is no tensor of torch's,
    `UnsupportedCheckpointError` for tensors without plain values here.
    """

    layout = "memory"
    live = True

    def __init__(self, tensors: TensorsLike) -> None:
        module = isinstance(tensors, nn.Module)
        super().__init__(f"the {type(tensors).__name__} in memory" if module else "the tensors in memory")
        state = tensors.state_dict(keep_vars=True) if isinstance(tensors, nn.Module) else tensors
        if not isinstance(state, Mapping):
            raise UsageError(
                f"tensors are a torch module, its state_dict() or tensors by name, not a {type(state).__name__}"
            )
        self.named_for_module = hasattr(state, STATE_MARK)
        self.given: dict[str, Tensor] = {}
        self._tensors: dict[str, TensorInfo] = {}
        self._digests: dict[str, bytes] = {}
        places: dict[tuple[object, ...], str] = {}
        for name, tensor in state.items():
            if self._take(name, tensor) and tensor.numel():
                first = places.setdefault(memory_of(tensor), name)
                if first != name:
                    self.ties[name] = first

    def _take(self, name: Any, tensor: Any) -> bool:
        """Take a tensor; say whether it is one."""
        if not isinstance(name, str):
            raise UnsupportedCheckpointError(f"{self.source}: the tensor name {name!r} is not a string")
        if self.named_for_module and name.rpartition(".")[2].startswith(EXTRA_STATE) and not is_tensor(tensor):
            self.left_out.append(name)
            return False
        if not isinstance(tensor, Tensor):
            raise UsageError(
                f"{self.source}: {printable(name)} is a {type(tensor).__name__}, not a tensor of torch's: "
                "diffpack.extract and diffpack.load take arrays, too"
            )
        self._tensors[name] = tensor_info(tensor, f"{self.source}: {printable(name)}")
        self.given[name] = tensor
        return True

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors by name."""
        return self._tensors

    def memory(self, name: str) -> TensorWords:
        """A tensor's words where it lies, to be read; of one that is not contiguous, a copy."""
        self.info(name)
        plain = self.given[name].detach().resolve_conj().resolve_neg().contiguous()
        return TensorWords(plain, f"{self.source}: {printable(name)}")

    def writable(self, name: str) -> TensorWords:
        """A tensor's words where it lies, to be written. Raises `UnsupportedCheckpointError` as `TensorWords` does."""
        self.info(name)
        return TensorWords(self.given[name], f"{self.source}: {printable(name)}")

    def words(self, name: str) -> Words:
        """A tensor's words, here: of a contiguous CPU tensor its own memory, of others a copy."""
        memory = self.memory(name)
        return host_words(memory.slice(0, memory.info.words), memory.info.dtype.word)

    def word_source(self, name: str) -> WordSource:
        """The same, of tensors elsewhere to be read part by part."""
        memory = self.memory(name)
        return self.words(name) if is_here(self.given[name]) else _Parts(memory)

    def digest(self, name: str, words: Words | None = None) -> bytes:
        """BLAKE3 (32 bytes) of a tensor's bytes, kept; `words` are the tensor's, if they are here already."""
        name = self.ties.get(name, name)
        if name not in self._digests:
            self._digests[name] = tensor_digest(self.word_source(name) if words is None else words)
        return self._digests[name]


class _Parts:
    """The words of a tensor on another device, of which parts come here when they are asked for (a `WordSource`)."""

    def __init__(self, memory: TensorWords) -> None:
        self._memory = memory
        self.size = memory.info.words
        self.dtype: np.dtype[Any] = memory.info.dtype.word

    def __getitem__(self, part: Part, /) -> Words:
        if isinstance(part, slice):
            start, stop, _ = part.indices(self.size)
            return host_words(self._memory.slice(start, stop), self.dtype)
        return host_words(self._memory.gather(self._memory.index(part)), self.dtype)
