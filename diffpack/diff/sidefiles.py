"""The small files beside the weights of a model folder: kept by extract, given back by apply."""

from __future__ import annotations

import numpy as np

from diffpack.checkpoints import Checkpoint
from diffpack.checkpoints.folder import MOST_SIDE_FILE_BYTES, side_files
from diffpack.diff.diff import Diff
from diffpack.errors import CorruptFileError, WrongBaseError
from diffpack.extraction.options import Options
from diffpack.format.chunks import encode_chunk
from diffpack.format.manifest import SideFile
from diffpack.format.writer import ContainerWriter
from diffpack.result.result import Result
from diffpack.tensors.digests import short_digest


def keep_side_files(writer: ContainerWriter, base: Checkpoint, tuned: Checkpoint, options: Options) -> list[SideFile]:
    """Keep the side files of the tuned folder: content where new or different, else the digest alone."""
    if base.folder is None or tuned.folder is None or not options.keep_files:
        return []
    of_base, _ = side_files(base.folder)
    found, notes = side_files(tuned.folder)
    tuned.notes.extend(notes)
    kept = []
    for name, path in found.items():
        content = path.read_bytes()
        same = name in of_base and of_base[name].read_bytes() == content
        if not same:
            writer.add(encode_chunk([np.frombuffer(content, np.uint8)], options.profile))
        kept.append(SideFile(name, len(content), short_digest(content), not same))
    return kept


def side_contents(result: Result) -> dict[str, bytes]:
    """Give the side files of the result: those the diff stores, and the base's it expects, all checked."""
    diff, folder = result.diff, result.base.folder
    if not diff.manifest.files:
        found, _ = side_files(folder) if folder is not None else ({}, [])
        return {name: path.read_bytes() for name, path in found.items()}
    contents = {}
    for item in diff.manifest.files:
        if item.stored:
            content = side_content(diff, item)
        elif folder is None:
            result.base.notes.append(f"{item.name} is expected beside the base, which is no folder: left out")
            continue
        else:
            path = folder / item.name
            content = path.read_bytes() if path.is_file() and path.stat().st_size <= MOST_SIDE_FILE_BYTES else b""
            if len(content) != item.bytes or short_digest(content) != item.digest:
                raise WrongBaseError(
                    f"{path}: missing, or not the file {diff.name} was made with; --no-files leaves such files out [L3]"
                )
        contents[item.name] = content
    return contents


def side_content(diff: Diff, item: SideFile) -> bytes:
    """Give a stored side file, checked. Raises `CorruptFileError` (L3)."""
    content = diff.blob(item.name)
    if len(content) != item.bytes or short_digest(content) != item.digest:
        raise CorruptFileError(f"{diff.name}: the side file {item.name}: damaged", "L3")
    return content
