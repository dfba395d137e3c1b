"""The file layout of a safetensors checkpoint: what apply needs to give the tuned files back, byte for byte."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from msgspec.structs import replace

from diffpack.checkpoints import Checkpoint
from diffpack.checkpoints.safetensors_header import MOST_HEADER_BYTES, parse_header
from diffpack.diff.diff import Diff
from diffpack.errors import CheckpointError, CorruptFileError
from diffpack.format.file_names import are_weights, clash, is_plain_path
from diffpack.format.manifest import Layout
from diffpack.format.writer import ContainerWriter
from diffpack.tensors.digests import short_digest
from diffpack.tensors.info import TensorInfo

Headers = list[tuple[str, bytes]]
"""(file name, header) pairs."""
Index = tuple[str, bytes] | None
"""(file name, content) of a shard index."""


def keep_layout(
    writer: ContainerWriter, base: Checkpoint, tuned: Checkpoint, profile: str, *, sha256: bool = False
) -> Layout | None:
    """Keep the tuned files' layout, if they are safetensors; its blob only if the base's differs.

    With `sha256` also the digests of the files. Only an exact diff has one.
    """
    described = describe_layout(tuned)
    if described is None:
        return None
    layout, blob = described
    if reason := _why_not_kept(layout, blob):
        tuned.notes.append(f"{tuned.source}: {reason}, so its layout is left out")
        return None
    of_base = describe_layout(base)
    same = of_base is not None and of_base[0].digest == layout.digest and len(of_base[1]) == len(blob)
    if not same:
        writer.add_blob(blob, profile)
    return Layout(
        layout.files, layout.index, layout.folder, not same, layout.digest,
        _sha256_of(tuned, layout) if sha256 else None,
    )  # fmt: skip


def _why_not_kept(layout: Layout, blob: bytes) -> str:
    """Say which of the rules L1 and L6 a layout breaks, for people; nothing if it keeps them."""
    files = [name for name, _ in layout.files if layout.folder]
    index = layout.index[0] if layout.index else None
    names = [*files, *([index] if index is not None else [])]
    if not all(map(is_plain_path, names)) or clash(names):
        return "its file names do not fit every system"
    if not are_weights(files, index):
        return "its files are not called safetensors, or its index not their index"
    try:
        _check_index(layout, split_blob(layout, blob)[1], "layout")
    except CorruptFileError:
        return "its index names something twice, or other files"
    return ""


def recorded_layout(diff: Diff, base: Checkpoint, tensors: Mapping[str, TensorInfo]) -> tuple[Headers, Index] | None:
    """The tuned files' headers and index, from the diff or from the base; None if neither has them.

    `tensors` are the result's. Raises `CorruptFileError` if the headers are of other ones (L2), or the index
    leads to other files (L6).
    """
    layout = diff.manifest.layout
    if layout is None:
        return None
    if layout.stored:
        blob = stored_blob(diff, layout)
    else:
        of_base = describe_layout(base)
        if of_base is None or of_base[0].digest != layout.digest:
            base.notes.append(
                "the diff expects the layout of its base's own files, which these are not: every tensor is exact, "
                "the order and metadata in the result's files are not the tuned ones"
            )
            return None
        blob = of_base[1]
    where = f"{diff.name}: layout"
    headers, index = split_blob(layout, blob)
    _check_headers(headers, tensors, where)
    _check_index(layout, index, where)
    return headers, index


def stored_blob(diff: Diff, layout: Layout) -> bytes:
    """The stored layout's blob, checked. Raises `CorruptFileError` (L2)."""
    blob = diff.blob("")
    expected = sum(size for _, size in layout.files) + (layout.index[1] if layout.index else 0)
    if len(blob) != expected or short_digest(blob) != layout.digest:
        raise CorruptFileError(f"{diff.name}: layout: damaged", "L2")
    return blob


def check_blob(diff: Diff, layout: Layout) -> None:
    """Check a stored layout: headers (L2), no tensor in two, and the index (L6). Raises `CorruptFileError`."""
    headers, index = split_blob(layout, stored_blob(diff, layout))
    _tensors_of(headers, f"{diff.name}: layout")
    _check_index(layout, index, f"{diff.name}: layout")


def describe_layout(checkpoint: Checkpoint) -> tuple[Layout, bytes] | None:
    """A checkpoint's layout (marked as stored) and its blob; None if it is not safetensors."""
    headers = checkpoint.header_files()
    if headers is None:
        return None
    index = checkpoint.index_file()
    folder = checkpoint.folder is not None or index is not None
    blob = b"".join(header for _, header in headers) + (index[1] if index else b"")
    layout = Layout(
        files=tuple((name if folder else "", len(header)) for name, header in headers),
        index=(index[0], len(index[1])) if index else None,
        folder=folder,
        stored=True,
        digest=short_digest(blob),
    )
    return layout, blob


def split_blob(layout: Layout, blob: bytes) -> tuple[Headers, Index]:
    """Cut a blob into (file name, header) pairs and (index name, index)."""
    headers, start = [], 0
    for name, size in layout.files:
        headers.append((name, blob[start : start + size]))
        start += size
    return headers, (layout.index[0], blob[start:]) if layout.index else None


def _check_headers(headers: Headers, tensors: Mapping[str, TensorInfo], where: str) -> None:
    """Check that headers describe just these tensors, each once. Raises `CorruptFileError` (L2)."""
    if _tensors_of(headers, where) != dict(tensors):
        raise CorruptFileError(f"{where}: its tensors are not those of the result", "L2")


def _check_index(layout: Layout, index: Index, where: str) -> None:
    """Check that an index leads to files of the layout and to no others. Raises `CorruptFileError` (L6)."""
    if index is None:
        return
    try:
        found = json.loads(index[1].decode(), object_pairs_hook=_unique, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise CorruptFileError(f"{where}: the index is damaged: {error}", "L6") from None
    homes = found.get("weight_map") if isinstance(found, dict) else None
    files = {name for name, _ in layout.files}
    if not isinstance(homes, dict) or not all(isinstance(home, str) and home in files for home in homes.values()):
        raise CorruptFileError(f"{where}: the index does not lead to the files of the layout", "L6")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("it names something twice")
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _tensors_of(headers: Headers, where: str) -> dict[str, TensorInfo]:
    """What headers say, each tensor once; those of a file in a folder are called by that folder, too (L2)."""
    tensors: dict[str, TensorInfo] = {}
    for name, raw in headers:
        if len(raw) > MOST_HEADER_BYTES:
            raise CorruptFileError(f"{where}: a header of {len(raw):,} bytes, which nobody reads", "L2")
        try:
            header = parse_header(raw, f"{where} {name}".rstrip())
        except CheckpointError as error:
            raise CorruptFileError(str(error), "L2") from None
        folder = name[: name.rfind("/") + 1]
        own = {folder + tensor: info for tensor, info in header.tensors.items()}
        if not tensors.keys().isdisjoint(own):
            raise CorruptFileError(f"{where}: a tensor stands in two files", "L2")
        tensors |= own
    return tensors


def _sha256_of(checkpoint: Checkpoint, layout: Layout) -> tuple[str, ...]:
    """The SHA-256 of the layout's files, in its order (then the index)."""
    assert checkpoint.path is not None
    folder = checkpoint.folder or checkpoint.path.parent
    names = [name or checkpoint.path.name for name, _ in layout.files]
    if layout.index:
        names.append(layout.index[0])
    digests = []
    for name in names:
        with (folder / name).open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    return tuple(digests)


def inherited_layout(writer: ContainerWriter, diffs: Sequence[Diff], profile: str) -> Layout | None:
    """Store the last result's layout, taken from the diff that has it; None if the chain does not tell it.

    A layout that is not stored is that of the diff's base, the result of the diff before: both must say the same.
    """
    last = diffs[-1].manifest.layout
    if last is None:
        return None
    for diff in reversed(diffs):
        layout = diff.manifest.layout
        if layout is None or layout.digest != last.digest:
            return None
        if layout.stored:
            writer.add_blob(stored_blob(diff, layout), profile)
            return replace(last, stored=True)
    return last


def layout_of_undo(writer: ContainerWriter, diff: Diff, base: Checkpoint | None, profile: str) -> Layout | None:
    """Keep the base's file layout: the result's own where they are the same, else stored if the base is there."""
    of_result = diff.manifest.layout
    described = None if base is None else describe_layout(base)
    if of_result is not None and not of_result.stored:  # both sides' files have the same headers; names may differ
        known = of_result if described is None or _why_not_kept(*described) else described[0]
        return replace(known, stored=False, sha256=None)
    if described is None or _why_not_kept(*described):
        return None
    layout, blob = described
    writer.add_blob(blob, profile)
    return layout
