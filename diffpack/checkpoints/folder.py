"""Model folders: which of their files are the weights, in the order their libraries read them."""

from __future__ import annotations

import re
from pathlib import Path, PurePath

from diffpack.checkpoints.endings import FSDP, foreign, indexed, is_index
from diffpack.checkpoints.safetensors_header import read_index
from diffpack.errors import CheckpointError, UnsupportedCheckpointError
from diffpack.support.names import listed, printable

_KNOWN = (
    # transformers: the whole file before the index of shards
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    # Keras, and transformers for TensorFlow
    "model.weights.h5",
    "tf_model.h5",
    # diffusers: the index of shards before the whole file
    "diffusion_pytorch_model.safetensors.index.json",
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.bin.index.json",
    "diffusion_pytorch_model.bin",
    # PEFT
    "adapter_model.safetensors",
    "adapter_model.bin",
)
"""Weights by the names their libraries give them, as those libraries look for them: the first that exists counts."""
_PARTS = tuple(name for name in _KNOWN if not name.endswith(".h5") and not name.startswith("adapter_"))
"""Those of a sub-folder: a Keras file or an adapter there is no part of the model around it."""
_ENDINGS = (
    ".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".hdf5", ".th", ".pth.tar", ".pt.tar", ".keras", ".npz",
    ".pkl",
)  # fmt: skip
"""Weights by other names: the first of these of which there are any counts. `.model` is a tokenizer's, in a folder."""
_VARIANT = r"\.[A-Za-z][A-Za-z0-9_]*"
"""What diffusers and transformers put before an ending for weights of a kind (`.fp16`); before `.json` of an index."""
_SHARD = re.compile(r"-(\d+)-of-(\d+)\.\w+")
"""How the shards of a model are called: model-00001-of-00002.safetensors."""
_TRAINING = re.compile(
    r"(training_args|optimizer|scheduler|scaler|rng_state|random_states)[_0-9]*"
    r"\.(bin|pt|pth|th|pth\.tar|pt\.tar|npz|pkl)"
)
"""What trainers save beside the weights: pickles, and no weights."""


def find_weights(folder: Path) -> Path:
    """The weights file or shard index of a model folder.

    An index of which no shard is there counts only if nothing else is. Raises `CheckpointError` if there are no
    weights, or several and none of a well-known name.
    """
    names = candidates(folder)
    shards = {name: shards_of(folder / name) for name in names if is_index(name)}
    stale = {name for name, own in shards.items() if own and own.isdisjoint(names)}
    known = [name for name in _KNOWN if name in names]
    for name in known:
        if name not in stale:
            return folder / name
    for ending in _ENDINGS:
        of_shards = frozenset().union(*shards.values())
        single = [name for name in names if name.endswith(ending) and name not in of_shards]
        found = single or [
            name for name in names if is_index(name) and indexed(name).endswith(ending) and name not in stale
        ]
        if len(found) > 1 and all(foreign(name) == FSDP for name in found):
            raise UnsupportedCheckpointError(f"{folder}: its weights are in parts; {found[0]} is {FSDP[0]}: {FSDP[1]}")
        if len(found) > 1:
            which = listed([printable(name) for name in found])
            if all(map(shard_number, found)):
                raise CheckpointError(
                    f"{folder}: shards of a model ({which}) without the index that lists them all: copy "
                    f"{_index_name(found[0])} here, too"
                )
            raise CheckpointError(f"{folder}: several weights files ({which}); name one of them")
        if found:
            return folder / found[0]
    if stale:
        return folder / (known or sorted(stale))[0]
    for name in sorted(path.name for path in folder.iterdir() if path.is_file()):
        if (other := foreign(name)) is not None:
            raise UnsupportedCheckpointError(
                f"{folder}: a folder without weights that are read here; {printable(name)} is {other[0]}: {other[1]}"
            )
    raise CheckpointError(f"{folder}: a folder without weights (model.safetensors, pytorch_model.bin, ...)")


def part_weights(folder: Path) -> Path | None:
    """The weights of a sub-folder, by the names their libraries give them; None if it has none of these.

    Where it has only a variant of one (`model.fp16.safetensors`), that counts. Raises `CheckpointError` for several.
    """
    known = [folder / name for name in _PARTS if (folder / name).is_file()]
    fresh = (path for path in known if not is_index(path.name) or not _is_stale(path))
    return next(fresh, known[0] if known else _only_variant(folder))


def _only_variant(folder: Path) -> Path | None:
    """The variant of the first of a sub-folder's names that has one. Raises `CheckpointError` if it has several."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    for known in _PARTS:
        stem, ending = known.rsplit(".", 1)
        found = [name for name in names if re.fullmatch(rf"{re.escape(stem)}{_VARIANT}\.{ending}", name)]
        if len(found) > 1:
            raise CheckpointError(f"{folder}: weights of several variants ({listed(found)}) and no others: keep one")
        if found:
            return folder / found[0]
    return None


def _is_stale(index: Path) -> bool:
    shards = shards_of(index)
    return bool(shards) and not any((index.parent / name).is_file() for name in shards)


def passed_over(weights: Path) -> list[str]:
    """The other files beside the weights found in a folder that could be taken for weights, shards by their index."""
    names = candidates(weights.parent)
    of_shards = frozenset().union(*(shards_of(weights.parent / name) for name in names if is_index(name)))
    return [name for name in names if name != weights.name and name not in of_shards]


def index_of(weights: Path) -> Path | None:
    """The shard index beside a weights file that names it as one of its shards, if there is one."""
    return next((index for index in sorted(weights.parent.glob("*.json")) if weights.name in shards_of(index)), None)


def shard_number(name: str) -> tuple[int, int] | None:
    """Which shard a file is by its name, and of how many; None if it is not called as one of several."""
    found = _SHARD.search(name)
    return (int(found[1]), int(found[2])) if found is not None and int(found[2]) > 1 else None


def _index_name(shard: str) -> str:
    """The name that libraries give the index of a shard."""
    return f"{_SHARD.sub(lambda found: PurePath(found[0]).suffix, shard)}.index.json"


def candidates(folder: Path) -> list[str]:
    """What may be weights or an index of them, by its name, sorted."""
    found = [path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    return sorted(name for name in found if _may_be_weights(indexed(name)))


def _may_be_weights(name: str) -> bool:
    return name.endswith(_ENDINGS) and not is_training_state(name)


def is_training_state(name: str) -> bool:
    """Tell whether a file of this name is what trainers save beside the weights, to go on from."""
    return _TRAINING.fullmatch(name) is not None


def shards_of(index: Path) -> frozenset[str]:
    """The shards an index names; none if it cannot be read, which is told once it is opened."""
    try:
        return frozenset(read_index(index)[1].values())
    except CheckpointError:
        return frozenset()
