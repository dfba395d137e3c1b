"""What a chain of diffs says of files: layout and side files of the last result, as seen from the first base."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace as changed

from diffpack.diff.diff import Diff
from diffpack.diff.entries import copy_blob
from diffpack.diff.layout import stored_blob
from diffpack.diff.sidefiles import side_content
from diffpack.format.manifest import Layout, SideFile
from diffpack.format.writer import ContainerWriter


def carry_layout(writer: ContainerWriter, diffs: Sequence[Diff], profile: str) -> Layout | None:
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
            copy_blob(writer, stored_blob(diff, layout), profile)
            return changed(last, stored=True)
    return last


def carry_files(writer: ContainerWriter, diffs: Sequence[Diff], profile: str) -> tuple[SideFile, ...]:
    """Store the last result's side files where the chain has them; the others are expected beside the base."""
    listed = [diff for diff in diffs if diff.manifest.files]
    if not listed:
        return ()
    kept = []
    for item in listed[-1].manifest.files:
        content = _content(listed, item)
        if content is not None:
            copy_blob(writer, content, profile)
        kept.append(changed(item, stored=content is not None))
    return tuple(kept)


def _content(diffs: Sequence[Diff], item: SideFile) -> bytes | None:
    """Give a side file's content from the last diff that stores it; None if it is the first base's own."""
    for diff in reversed(diffs):
        for own in diff.manifest.files:
            if own.name == item.name and own.digest == item.digest and own.stored:
                return side_content(diff, own)
    return None
