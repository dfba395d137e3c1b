"""The small files beside the weights of a model folder: kept by extract, given back by apply."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from msgspec.structs import replace

from diffpack.checkpoints import Checkpoint
from diffpack.checkpoints.side_files import content_of, named, side_files
from diffpack.diff.diff import Diff
from diffpack.diff.file_choice import FileChoice
from diffpack.errors import CorruptFileError, UsageError, WrongBaseError
from diffpack.format import limits
from diffpack.format.file_names import alike, is_code
from diffpack.format.manifest import SideFile
from diffpack.format.writer import ContainerWriter
from diffpack.support.names import listed
from diffpack.tensors.digests import short_digest


def keep_side_files(
    writer: ContainerWriter,
    base: Checkpoint,
    tuned: Checkpoint,
    profile: str,
    choice: FileChoice,
    *,
    code: bool = False,
) -> tuple[SideFile, ...]:
    """Keep the side files of the tuned folder: content where new or different, else the digest alone.

    With `code` those that are code, too. Where `choice` keeps some only, the others are the base's, by their digests;
    where it keeps none, none is named. What is not kept is added to `tuned.left_out`. Raises `UsageError` for a name
    that is there not.
    """
    if tuned.folder is None:
        return ()
    of_base = {} if base.folder is None else side_files(base.folder, base.files).chosen(code=code)
    beside = side_files(tuned.folder, tuned.files)
    own = beside.chosen(code=code)
    choice.check(own, str(tuned.folder))
    contents = {name: content_of(path) for name, path in own.items()}
    before = {name: content_of(path) for name, path in of_base.items()}
    lost = [name for name, content in contents.items() if not choice.keeps(name) and before.get(name) != content]
    _leave_out(tuned, beside.not_kept(code=code) + [_instead(name, name in before) for name in lost])
    if choice.nothing:
        return ()
    chosen = {name: content for name, content in contents.items() if choice.keeps(name)}
    spelt = {alike(name) for name in chosen}
    rest = {name: content for name, content in before.items() if not choice.keeps(name)}
    result = {name: content for name, content in rest.items() if alike(name) not in spelt} | chosen
    kept = []
    for name, content in sorted(result.items()):
        stored = before.get(name) != content
        if stored:
            writer.add_blob(content, profile)
        kept.append(SideFile(name, len(content), short_digest(content), stored))
    return tuple(kept)


def _leave_out(tuned: Checkpoint, items: Sequence[str]) -> None:
    tuned.left_out += [item for item in items if item not in tuned.left_out]


def _instead(name: str, in_base: bool) -> str:
    """Name a side file that was not chosen, and what stands for it."""
    return f"{name} (the base's is given back)" if in_base else name


def side_contents(
    diff: Diff, base: Checkpoint, *, code: bool = False, only: Collection[str] | None = None
) -> dict[str, bytes]:
    """The side files of the result: those the diff stores, and the base's it expects, all checked.

    With `only` those of these names alone, and no others are looked at. Without `code` a diff that holds code is
    refused, naming it (`UsageError`). Raises `WrongBaseError` for a file that the base's folder lacks or has otherwise.
    """
    folder = base.folder
    if not diff.manifest.files:
        if folder is None:
            return {}
        beside = side_files(folder, base.files)
        left = beside.not_kept(code=code)
        if left and only is None:
            base.notes.append(f"not taken along from the base's folder: {named(left)}")
        return {
            name: content_of(path) for name, path in beside.chosen(code=code).items() if only is None or name in only
        }
    wanted = [item for item in diff.manifest.files if only is None or item.name in only]
    programs = [item.name for item in wanted if is_code(item.name)]
    if programs and not code:
        which = listed(programs)
        raise UsageError(f"{diff.name}: holds code ({which}): --code writes it, --no-files leaves side files out")
    contents = {}
    for item in wanted:
        if item.stored:
            content = side_content(diff, item)
        elif folder is None:
            base.notes.append(f"{item.name} is expected beside the base, which is no folder: left out")
            continue
        else:
            path = folder / item.name
            there = path.is_file() and path.stat().st_size == item.bytes <= limits.STREAM_DECODED_BYTES
            content = content_of(path) if there else b""
            if not there or len(content) != item.bytes or short_digest(content) != item.digest:
                what = f"missing, or not the file {diff.name} was made with"
                raise WrongBaseError(f"{path}: {what}; --no-files leaves such files out [L3]", hint="")
        contents[item.name] = content
    return contents


def side_content(diff: Diff, item: SideFile) -> bytes:
    """A stored side file, checked. Raises `CorruptFileError` (L3)."""
    content = diff.blob(item.name)
    if len(content) != item.bytes or short_digest(content) != item.digest:
        raise CorruptFileError(f"{diff.name}: the side file {item.name}: damaged", "L3")
    return content


def inherited_files(writer: ContainerWriter, diffs: Sequence[Diff], profile: str) -> tuple[SideFile, ...]:
    """Store the last result's side files where the chain has them; the others are expected beside the base."""
    listed = [diff for diff in diffs if diff.manifest.files]
    if not listed:
        return ()
    kept = []
    for item in listed[-1].manifest.files:
        content = _content(listed, item)
        if content is not None:
            writer.add_blob(content, profile)
        kept.append(replace(item, stored=content is not None))
    return tuple(kept)


def _content(diffs: Sequence[Diff], item: SideFile) -> bytes | None:
    """A side file's content from the last diff that stores it; None if it is the first base's own."""
    for diff in reversed(diffs):
        for own in diff.manifest.files:
            if own.name == item.name and own.digest == item.digest and own.stored:
                return side_content(diff, own)
    return None


def files_of_undo(writer: ContainerWriter, diff: Diff, base: Checkpoint | None, profile: str) -> tuple[SideFile, ...]:
    """Keep the base's side files, stored where the result's folder has others.

    What of the base's folder is not kept is added to `base.left_out`.
    """
    of_result = {item.name: item.digest for item in diff.manifest.files}
    if base is None or base.folder is None or not of_result:
        return ()
    kept = []
    code = any(is_code(name) for name in of_result)
    beside = side_files(base.folder, base.files)
    _leave_out(base, beside.not_kept(code=code))
    for name, path in beside.chosen(code=code).items():
        content = content_of(path)
        digest = short_digest(content)
        stored = of_result.get(name) != digest
        if stored:
            writer.add_blob(content, profile)
        kept.append(SideFile(name, len(content), digest, stored))
    return tuple(kept)
