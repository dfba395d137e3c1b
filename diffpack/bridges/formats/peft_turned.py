"""Which adapted matrices are stored turned, (in, out), as the layers of GPT-2 are.

PEFT goes by the module (transformers' Conv1D, or torch's Linear) and corrects `fan_in_fan_out` on the way, so an
adapter's settings hold what the last module of a model had. The shapes tell, but for square matrices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from diffpack.bridges.formats.peft_adapter import Adapter
from diffpack.bridges.formats.peft_factors import Layer
from diffpack.tensors.info import TensorInfo

_OF_CONV1D = ("c_attn", "c_proj", "c_fc", "q_attn")
"""What GPT-2 and its kin call their layers."""
_WIDENING = ("c_attn.weight", "c_fc.weight")
"""Those of them that have more outputs than inputs: stored turned, there are more columns than rows."""


def turned_layers(
    adapter: Adapter, layers: Sequence[Layer], infos: Mapping[str, TensorInfo], base: Mapping[str, TensorInfo]
) -> set[str]:
    """The modules, of those with factors, whose weights are (in, out).

    `infos` are their weights' in the base, by module; `base` are all of its tensors.
    """
    known = {layer.module: _by_shape(adapter, layer, infos.get(layer.module)) for layer in layers}
    return {
        module
        for module, turned in known.items()
        if (_guessed(adapter, module, known, base) if turned is None else turned)
    }


def _by_shape(adapter: Adapter, layer: Layer, info: TensorInfo | None) -> bool | None:
    """What the shapes tell; None for square matrices, and where nothing fits."""
    if layer.embedding:
        return True
    inputs, outputs = (
        adapter.weights.info(adapter.keys[layer.module + end]).shape for end in (layer.first, layer.second)
    )
    if info is None or len(info.shape) != 2 or len(inputs) != 2 or len(outputs) != 2 or inputs[1] == outputs[0]:
        return False if info is None or len(info.shape) != 2 else None
    return info.shape == (inputs[1], outputs[0])


def _guessed(adapter: Adapter, module: str, known: Mapping[str, bool | None], base: Mapping[str, TensorInfo]) -> bool:
    """Of a square matrix: as others of its kind are, else as the settings say."""
    own = module.rpartition(".")[2]
    alike = {turned for other, turned in known.items() if other.rpartition(".")[2] == own and turned is not None}
    if len(alike) == 1:
        return alike.pop()
    if own in _OF_CONV1D:
        return stored_turned(module, base)
    return bool(adapter.config.get("fan_in_fan_out"))


def stored_turned(module: str, tensors: Mapping[str, TensorInfo]) -> bool:
    """Whether a model's tensors show that a layer of such a name is (in, out): those that widen have more columns."""
    if module.rpartition(".")[2] not in _OF_CONV1D:
        return False
    shapes = [info.shape for name, info in tensors.items() if name.endswith(_WIDENING) and len(info.shape) == 2]
    return bool(shapes) and all(rows < columns for rows, columns in shapes)
