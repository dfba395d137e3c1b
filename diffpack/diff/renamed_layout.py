"""The layout of a diff whose tensors get other names: the same files, in which only the names are others."""

from __future__ import annotations

import json
from collections.abc import Mapping

from diffpack.checkpoints import Checkpoint
from diffpack.diff.diff import Diff
from diffpack.diff.layout import describe_layout, split_blob, stored_blob
from diffpack.format.manifest import Layout
from diffpack.format.writer import ContainerWriter
from diffpack.tensors.digests import short_digest

_METADATA = "__metadata__"
_ALIGNMENT = 8
"""Writers pad headers with blanks to a multiple of it."""


def renamed_layout(
    writer: ContainerWriter, diff: Diff, base: Checkpoint | None, names: Mapping[str, str], profile: str
) -> tuple[Layout | None, str]:
    """Store the layout with other names of tensors; also a remark for people ("" if there is nothing to say).

    `names` leads from the result's names to the new ones. Order and metadata of the headers stay; digests of the files
    cannot. Raises `CorruptFileError`.
    """
    layout = diff.manifest.layout
    if layout is None:
        return None, ""
    blob = _blob(diff, layout, base)
    if blob is None:
        return None, "its files' layout is that of the base's own files, which are not at hand: left out"
    headers, index = split_blob(layout, blob)
    made = [_renamed_header(raw, name[: name.rfind("/") + 1], names) for name, raw in headers]
    kept = [header for header in made if header is not None]
    if len(kept) < len(made):
        return None, "a tensor would be called after another folder than its file is in: the files' layout is left out"
    new_index = b"" if index is None else _renamed_index(index[1], names)
    content = b"".join(kept) + new_index
    writer.add_blob(content, profile)
    files = tuple((name, len(header)) for (name, _), header in zip(headers, kept, strict=True))
    of_index = None if index is None else (index[0], len(new_index))
    remark = "" if layout.sha256 is None else "the SHA-256 of the files are those of other names: left out"
    return Layout(files, of_index, layout.folder, True, short_digest(content)), remark


def _blob(diff: Diff, layout: Layout, base: Checkpoint | None) -> bytes | None:
    if layout.stored:
        return stored_blob(diff, layout)
    described = None if base is None else describe_layout(base)
    return described[1] if described is not None and described[0].digest == layout.digest else None


def _renamed_header(raw: bytes, folder: str, names: Mapping[str, str]) -> bytes | None:
    """A safetensors header with other names; None if one of them cannot stand in a file of that folder."""
    header = json.loads(raw)
    renamed = {}
    for name, value in header.items():
        new = name if name == _METADATA else names.get(folder + name, folder + name)
        if name != _METADATA:
            if not new.startswith(folder) or new == folder + _METADATA:
                return None
            new = new[len(folder) :]
        renamed[new] = value
    text = json.dumps(renamed, separators=(",", ":"), ensure_ascii=False).encode()
    return text + b" " * (-len(text) % _ALIGNMENT)


def _renamed_index(raw: bytes, names: Mapping[str, str]) -> bytes:
    """A shard index with other names, laid out as transformers does."""
    index = json.loads(raw)
    homes = {names.get(name, name): home for name, home in index["weight_map"].items()}
    return (json.dumps({**index, "weight_map": homes}, indent=2, ensure_ascii=False) + "\n").encode()
