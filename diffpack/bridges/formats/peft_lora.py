"""PEFT LoRA adapters: read, what leads from the base to the model that merging the adapter gives.

The factors are kept where the change is their product, else the merged weights, in steps. PEFT multiplies in float32,
in the order of its matrix library, so its last bits differ; docs/bridges.md says by how much. So a diff with such sums
is called lossy, although each of its steps is exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

from diffpack.algebra.sums import Sums
from diffpack.bridges.bridge import Bridge, Import
from diffpack.bridges.formats.peft_adapter import CONFIG, MERGE, Adapter, is_adapter, open_adapter
from diffpack.bridges.formats.peft_base import with_names_of
from diffpack.bridges.formats.peft_changes import TIED, AdapterChanges
from diffpack.bridges.formats.peft_factors import Layer, find_layers
from diffpack.bridges.formats.peft_keys import BASE_LAYER
from diffpack.bridges.formats.peft_lora_export import LORA_OPTIONS, write_lora
from diffpack.bridges.formats.peft_merge import biased, merged
from diffpack.bridges.formats.peft_stored import STORED, StoredLayers
from diffpack.bridges.formats.peft_targets import note_layers_without
from diffpack.bridges.formats.peft_tokens import TOKENS, add_tokens
from diffpack.bridges.formats.peft_turned import turned_layers
from diffpack.bridges.importing import write_patch
from diffpack.errors import UsageError
from diffpack.support.names import listed, printable

_KIND = "LORA"
_WEIGHT = ".weight"
_UNKNOWN = (
    "use_qalora", "use_bdlora", "layer_replication", "target_parameters", "alora_invocation_tokens", "arrow_config",
    "velora_config", "monteclora_config", "kasa_config", "enable_lora",
)  # fmt: skip
"""Settings that make the change something else than scale x B A (or, for some inputs only, nothing)."""
_PLAIN_STARTS = ("gaussian", "orthogonal", "eva", "mica")
"""Ways to draw the factors that leave the base as it is; PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA take a part of it."""


def _read(job: Import, file: BinaryIO) -> None:
    adapter = open_adapter(job.source, _KIND)
    _refuse(adapter)
    job = with_names_of(job, adapter)
    sums = Sums(job.clip)
    changes = AdapterChanges(adapter, job, sums)
    layers, biases = find_layers(adapter)
    turned = _turned(adapter, layers, changes, job)
    stored = StoredLayers(adapter, job)
    for layer in layers:
        own = layer.module in turned
        change = partial(merged, adapter, layer, own, sums)
        changes.add(layer.module + _WEIGHT, layer.module + layer.first, change, stored.of(layer, own))
    for layer in biases:
        changes.add(layer.module + ".bias", layer.module + layer.second, partial(biased, adapter, layer, sums))
    taken = {name for layer in [*layers, *biases] for name in layer.names}
    taken |= add_tokens(adapter, changes, sums)
    for name in sorted(adapter.keys.keys() - taken):
        if "lora_" in name or TOKENS in name:
            raise UsageError(f"{job.source}: {printable(name)} is not of LoRA, scale x B A; {MERGE}")
        changes.replace(name)
    makes = changes.makes()
    note_layers_without(job, adapter.config, {changes.target(layer.module + _WEIGHT) for layer in layers})
    _note_lost_biases(job, adapter, layers)
    _note_ranks(job, adapter, layers)
    recipe = {"merged": "scale x B A, in float64", **stored.recipe()}
    write_patch(job, file, makes, recipe, aliases=changes.ties(makes), sums=sums)
    stored.note()


def _refuse(adapter: Adapter) -> None:
    """Raise `UsageError` if the settings ask for more than is merged here."""
    used = [name for name in _UNKNOWN if adapter.config.get(name)]
    if used:
        raise UsageError(f"{adapter.path}: {listed(used)}: only LoRA's scale x B A, and DoRA, are merged here; {MERGE}")
    begun = adapter.config.get("init_lora_weights", True)
    if not isinstance(begun, bool | None) and not (isinstance(begun, str) and begun in _PLAIN_STARTS):
        raise UsageError(
            f"{adapter.path}: init_lora_weights {begun!r} changes the base itself: save the adapter in PEFT with "
            "path_initial_model_for_weight_conversion, which makes plain LoRA of it"
        )
    if adapter.config.get("use_dora") and not any("lora_magnitude_vector" in name for name in adapter.keys):
        raise UsageError(f"{adapter.path}: use_dora, but there are no magnitudes: save or copy the adapter anew")


def _note_ranks(job: Import, adapter: Adapter, layers: Sequence[Layer]) -> None:
    """Tell of factors of ranks that the settings do not name: these are another adapter's, or were edited.

    PEFT does not load such an adapter; here the scale is lora_alpha / the factors' rank.
    """
    patterns = adapter.config.get("rank_pattern")
    named = [adapter.config.get("r"), *(patterns.values() if isinstance(patterns, Mapping) else ())]
    said = {rank for rank in named if isinstance(rank, int)}
    others = [f"{printable(layer.module)} ({layer.rank})" for layer in layers if layer.rank not in said]
    if said and others:
        job.notes.append(
            f"factors of ranks that {CONFIG} does not name ({' or '.join(map(str, sorted(said)))}): {listed(others)}: "
            "PEFT loads no such adapter, so these may be the settings of another one; scaled by the factors' ranks"
        )


def _note_lost_biases(job: Import, adapter: Adapter, layers: Sequence[Layer]) -> None:
    """Tell of biases that were trained and are not there: some versions of PEFT do not save those of adapted layers."""
    trained = adapter.config.get("bias", "none")
    view = job.view()
    lost = [
        f"{layer.module}.bias"
        for layer in layers
        if f"{layer.module}.bias" in view
        and not {f"{layer.module}.bias", f"{layer.module}.{BASE_LAYER}.bias"} & adapter.keys.keys()
    ]
    if trained != "none" and lost:
        which = listed([printable(name) for name in lost])
        job.notes.append(f"bias is {trained!r}, and the adapter has not saved these, left as in the base: {which}")


def _turned(adapter: Adapter, layers: Sequence[Layer], changes: AdapterChanges, job: Import) -> set[str]:
    infos = {layer.module: changes.base_info(layer.module + _WEIGHT) for layer in layers}
    known = {module: info for module, info in infos.items() if info is not None}
    return turned_layers(adapter, layers, known, job.needed_base.tensors)


def _detect(path: Path) -> bool:
    return is_adapter(path, _KIND)


BRIDGE = Bridge(_detect, _read, write_lora, TIED | STORED, LORA_OPTIONS)
