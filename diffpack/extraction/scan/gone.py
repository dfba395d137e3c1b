"""A tuned checkpoint that lacks most of the base is none: an adapter, one of several shards, a file saved empty."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from math import prod

from diffpack.checkpoints import Checkpoint, TensorInfo
from diffpack.checkpoints.folder import index_of, shard_number
from diffpack.errors import UsageError
from diffpack.extraction.scan.scan import Scan
from diffpack.support.names import listed, printable
from diffpack.tensors.rename import Rename, own_names

MOST_GONE = 0.5
"""The part of the base's entries that may go without being asked for. A head or a vocabulary may, layers pruned, too;
of an adapter's base all go."""
_ADAPTER = re.compile(
    r"(^|[._])(lora_[AB]|lora_embedding_[AB]|lora_magnitude_vector|ia3_l|shira_\w+|vera_lambda_[bd]|hada_w\d_[ab]|"
    r"lokr_w\d|oft_[rR]|adapter_down|adapter_up|prompt_embeddings)([._]|$)"
)
"""Parts of names that PEFT gives to what it adds to a model."""
_ADAPTER_FILES = ("adapter_model", "adapter_config.json")
_INSIST = "allow_removed=True (--allow-removed) stores it as it is"


def used_of_base(
    scans: Iterable[Scan], base: Mapping[str, TensorInfo], digests: Mapping[str, bytes], rename: Rename
) -> set[str]:
    """Name the base's tensors (by their own names) that the result still has something of.

    Those of which it has the (renamed) name, unless nothing is left in that tensor; those that a tensor of another name
    is compared with, or slices of; and those that are equal to one of these, or to a tensor of the result (tied weights
    of which one name is kept). `digests` are the base's (32 bytes), by its own names.
    """
    kept = [item for item in scans if item.pair.info.words]
    view = own_names(base, rename)
    used = {view[item.pair.name] for item in kept if item.pair.name in view}
    used |= {item.pair.base_name for item in kept if item.pair.base_name is not None}
    made = [item.pair.assembly for item in kept if item.pair.assembly is not None]
    used |= {view[source] for assembly in made for source in assembly.sources}
    if len(used) == len(base):
        return used
    there = {(item.pair.info, item.digest) for item in kept} | {(base[name], digests[name]) for name in used}
    return used | {name for name, info in base.items() if (info, digests[name]) in there}


def refuse_most_gone(base: Checkpoint, tuned: Checkpoint, used: set[str]) -> None:
    """Raise `UsageError` if over `MOST_GONE` of the base's entries are in tensors not `used` (the base's own names).

    Of a file that is one shard of several no entry may go: it is never the whole model, and the first holds most of it.
    """
    entries = {name: prod(info.shape) for name, info in base.tensors.items()}
    lost = sorted((name for name, count in entries.items() if count and name not in used), key=lambda at: -entries[at])
    total, gone = sum(entries.values()), sum(entries[name] for name in lost)
    if gone <= MOST_GONE * total and not (gone and _shard(tuned)):
        return
    which = listed([printable(name) for name in lost])
    raise UsageError(
        f"{tuned.source}: lacks {100 * gone / total:.0f} % of the base's entries ({which}): {_likely(base, tuned)}; "
        f"{_INSIST}"
    )


def advice_on_base(base: Checkpoint, tuned: Checkpoint) -> list[str]:
    """Tell of a base that is one shard of several, while the tuned checkpoint has more: the rest is stored whole."""
    if tuned.tensors.keys() <= base.tensors.keys() or (shard := _shard(base)) is None:
        return []
    return [f"{base.source}: {shard}; what it lacks is stored as new, whole"]


def _likely(base: Checkpoint, tuned: Checkpoint) -> str:
    """Say what such a checkpoint most likely is, and what to do with it."""
    names = tuned.tensors
    if _is_adapter(tuned):
        where = tuned.folder or tuned.path or "ADAPTER"
        return f"an adapter, not a model: `diffpack convert {where} -o OUT.dpk --base {base.path or 'BASE'}` reads it"
    if (shard := _shard(tuned)) is not None:
        return shard
    if not names:
        return "it holds no tensors: it was saved empty, or is not the file that holds the weights"
    if not any(prod(info.shape) for info in names.values()):
        return (
            "its tensors are empty, as where training in parts (ZeRO stage 3, FSDP) saves without gathering them: "
            "save it gathered"
        )
    if tuned.advice:  # its tensors are like those that are gone, and this is how they may be called
        return tuned.advice.pop()
    like = set(base.tensors.values())
    new = [info for name, info in names.items() if name not in base.tensors]
    if new and sum(info.nbytes for info in new if info in like) > MOST_GONE * tuned.nbytes:
        return "its tensors have other names (rename, --rename OLD=NEW, says which), or it is another model"
    return "it is no fine-tune of the whole base"


def _is_adapter(tuned: Checkpoint) -> bool:
    if any(_ADAPTER.search(name) for name in tuned.tensors):
        return True
    named = tuned.path is not None and tuned.path.name.startswith(_ADAPTER_FILES)
    return named or (tuned.folder is not None and (tuned.folder / _ADAPTER_FILES[1]).is_file())


def _shard(tuned: Checkpoint) -> str | None:
    """Say which model a single file is a shard of, if an index beside it, or its name, tells."""
    path = tuned.path
    if path is None or not path.is_file() or path.name.endswith(".json"):
        return None
    if (index := index_of(path)) is not None:
        return f"one shard of several: name the index {index}, or the folder"
    if (found := shard_number(path.name)) is None:
        return None
    return f"shard {found[0]} of {found[1]}: name the folder, or the index that lists them all"
