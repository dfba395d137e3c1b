"""Which shard a tensor is read from: the one its index names, for every layout that has shards."""

from __future__ import annotations

from collections.abc import Mapping

from diffpack.errors import CheckpointError
from diffpack.support.names import listed, printable
from diffpack.tensors.info import TensorInfo


def sort_into_shards(
    weight_map: Mapping[str, str], contents: Mapping[str, Mapping[str, TensorInfo]], index: str
) -> tuple[dict[str, str], list[str]]:
    """Find the shard of every tensor: the one its index names, else the one that holds it; and remarks about it.

    `contents` are the tensors of each shard. Raises `CheckpointError`.
    """
    for name, shard in weight_map.items():
        if name not in contents[shard]:
            raise CheckpointError(f"{index}: the shard {shard} should hold {name!r} but does not")
    homes, unlisted, repeated = dict(weight_map), [], []
    for shard, part in contents.items():
        for name in part:
            if name not in homes:
                homes[name] = shard
                unlisted.append(printable(name))
            elif homes[name] != shard:
                if name not in weight_map:
                    raise CheckpointError(f"{index}: tensor {name!r} stands in two shards, and not in the index")
                repeated.append(f"{printable(name)} in {shard}")
    notes = []
    if unlisted:
        notes.append(f"not in the index, and taken as well: {listed(sorted(unlisted))}")
    if repeated:
        notes.append(f"in a second shard, where the index does not look for it: {listed(sorted(repeated))}")
    return homes, notes
