"""What the tensors of an adapter are called: with what is in front, and without what others put in between.

PEFT saves `base_model.model.<module>.lora_A.weight`. A state dict that was saved as it is (by a trainer's checkpoint,
by FSDP, by torch.compile) has the adapter's own name behind `lora_A`, and wrappers of torch on the way.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from diffpack.errors import CorruptFileError, UsageError
from diffpack.support.names import listed, printable

PREFIX = "base_model.model."
CALLED = {"prefix": "what the model that loads the adapter has in front of the base's names, such as bert. or model."}
"""The option of adapters that are written."""
_FACTORS = {"lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector", "shira_weight"}
_NAMED = _FACTORS | {"shira_indices", "modules_to_save", "trainable_tokens_delta"}
"""Parts of a name behind which that of the adapter may stand."""
_OWN = ("weight", "bias")
_AROUND = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
"""What torch puts into the names of modules it wraps: compiled, sharded, computed again."""
BASE_LAYER = "base_layer"
UNTOUCHED = "original_module"  # beside a module of `modules_to_save`: the base's own, which is not used
WRAPPERS = {BASE_LAYER, "modules_to_save", UNTOUCHED}
"""What PEFT puts into the names of modules it wraps."""
_OF_WEIGHTS = (
    ".lora_A.weight", ".lora_B.weight", ".lora_embedding_A", ".lora_embedding_B", ".lora_magnitude_vector",
    ".shira_weight", ".shira_indices", ".token_adapter.trainable_tokens_delta",
)  # fmt: skip
_OF_BIASES = ".lora_B.bias"


def plain_keys(names: Iterable[str], where: str) -> dict[str, str]:
    """The names of a file's tensors by those PEFT saves, without the prefix.

    Raises `UsageError` if there are several adapters, `CorruptFileError` if two tensors get one name.
    """
    parts = {name: _without(name.removeprefix(PREFIX).split("."), _AROUND) for name in names}
    adapters = sorted({adapter for path in parts.values() for adapter in _adapters(path)})
    if len(adapters) > 1:
        several = listed([printable(adapter) for adapter in adapters])
        raise UsageError(f"{where}: holds several adapters ({several}); save each alone: save_pretrained of PEFT does")
    keys: dict[str, str] = {}
    for name, path in parts.items():
        plain = ".".join(_unnamed(path, adapters[0]) if adapters else path)
        plain = plain.removesuffix(".weight") if plain.endswith(".lora_magnitude_vector.weight") else plain
        if plain in keys:
            raise CorruptFileError(
                f"{where}: both {printable(keys[plain])} and {printable(name)} are {printable(plain)}"
            )
        keys[plain] = name
    return keys


def _without(path: list[str], words: set[str]) -> list[str]:
    return [part for part in path if part not in words]


def _adapters(path: list[str]) -> list[str]:
    """The names that stand behind factors."""
    return [after for part, after in pairwise(path) if part in _FACTORS and after not in _OWN]


def _unnamed(path: list[str], adapter: str) -> list[str]:
    return [part for at, part in enumerate(path) if not (at and part == adapter and path[at - 1] in _NAMED)]


def adapted(key: str) -> str | None:
    """The tensor that a factor is for, under the name PEFT uses; None for tensors that are no factors."""
    for end in _OF_WEIGHTS:
        if key.endswith(end):
            return f"{unwrapped(key.removesuffix(end))}.weight"
    return f"{unwrapped(key.removesuffix(_OF_BIASES))}.bias" if key.endswith(_OF_BIASES) else None


def unwrapped(name: str) -> str:
    """A name without those of PEFT's wrappers."""
    return ".".join(_without(name.split("."), WRAPPERS))
