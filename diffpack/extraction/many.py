"""extract_many: one base, many fine-tunes -> a diff of each.

One fine-tune after the other, so that memory is bounded as for one; what they share is that the base is opened and
hashed once. What one of them fails with does not keep the others from being stored.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

from diffpack.checkpoints import Checkpoint, CheckpointLike, open_checkpoint
from diffpack.checkpoints.collection import own_name
from diffpack.checkpoints.overwriting import refuse_overwriting
from diffpack.diff.diff import Diff
from diffpack.errors import DiffpackError, SomeFailedError, UsageError
from diffpack.extraction.choices import Choices, options_of
from diffpack.extraction.one_base import OneBase
from diffpack.extraction.options import Options
from diffpack.format.file_names import alike, is_plain_file_name
from diffpack.support.memory import memory_told
from diffpack.support.parallel import Progress

ENDING = ".dpk"


@memory_told
def extract_many(
    base: CheckpointLike,
    tuned: Iterable[CheckpointLike] | Mapping[str, CheckpointLike],
    output: str | os.PathLike[str] | None = None,
    *,
    metadata: Mapping[str, str] | None = None,
    force: bool = False,
    progress: Progress | None = None,
    **choices: Unpack[Choices],
) -> list[Diff]:
    """Store several fine-tunes as their differences from one base, which is opened and hashed once.

    Each diff is the one that `extract` makes of that fine-tune alone with the same `choices`, byte for byte, and is
    written to the folder `output` (made if it is not there, in one that is) under the fine-tune's name with `.dpk`:
    the key, if `tuned` is a mapping, else the name of its folder, or of its file without the ending. Without `output`
    each lives in an unnamed temporary file. Gives them in the order of `tuned`. A base in memory must not change
    meanwhile.

    `progress` is told of each fine-tune by its name: "NAME: scanning".

    Raises `UsageError`, before anything is read, for options that do not fit, two fine-tunes of one name, one in memory
    that has none, and outputs that exist (without `force`); `CheckpointError` if the base cannot be read. What the
    fine-tunes fail with (what `extract` and the system raise) is told when all others are stored, by a
    `SomeFailedError` that has the diffs and the errors.
    """
    options = options_of(**choices)
    given = named(tuned, needed=output is not None)
    made = extracted(
        OneBase.of(base, choices.get("importance")),
        given,
        None if output is None else Path(output),
        options,
        metadata or {},
        force=force,
        progress=lambda name: None if progress is None else _told(progress, name),
    )
    done: dict[str, Diff] = {}
    failed: dict[str, Exception] = {}
    for item in made:
        if item.diff is not None:
            done[item.name] = item.diff
        elif item.error is not None:
            failed[item.name] = item.error
    if failed:
        raise SomeFailedError(done, failed)
    return list(done.values())


def _told(progress: Progress, name: str) -> Progress:
    return lambda what, done, total: progress(f"{name}: {what}", done, total)


@dataclass(frozen=True)
class Extracted:
    """What became of one fine-tune: its diff, or the error. `tuned` is None if it could not be opened."""

    name: str
    output: Path | None
    tuned: Checkpoint | None
    diff: Diff | None = None
    error: Exception | None = None


def extracted(
    one_base: OneBase,
    tuned: Mapping[str, CheckpointLike],
    folder: Path | None,
    options: Options,
    metadata: Mapping[str, str],
    *,
    force: bool,
    progress: Callable[[str], Progress | None],
    mmap: bool = True,
) -> Iterator[Extracted]:
    """What becomes of fine-tunes by their names, one after the other, each as soon as it is known.

    The first is made when it is asked for; outputs that cannot be are refused here. `progress` gives what a fine-tune
    of a name is to report to.
    """
    outputs = {name: None if folder is None else folder / f"{name}{ENDING}" for name in tuned}
    if folder is not None:
        _refuse_outputs(folder, outputs, one_base.base, tuned, force)

    def one(name: str) -> Extracted:
        opened = None
        try:
            opened = open_checkpoint(tuned[name], mmap=mmap)
            diff = one_base.extract(opened, outputs[name], options, metadata, force=force, progress=progress(name))
            return Extracted(name, outputs[name], opened, diff=diff)
        except (DiffpackError, OSError) as error:
            return Extracted(name, outputs[name], opened, error=error)
        finally:
            if opened is not None and opened is not tuned[name]:
                opened.close()

    def all_of_them() -> Iterator[Extracted]:
        with contextlib.nullcontext() if folder is None else _made_if_needed(folder):
            yield from map(one, tuned)

    return all_of_them()


def named(
    tuned: Iterable[CheckpointLike] | Mapping[str, CheckpointLike], *, needed: bool = True
) -> dict[str, CheckpointLike]:
    """Fine-tunes by the names their diffs get: the keys of a mapping, else what they are called by their paths.

    Those in memory have a number where no name is `needed`. Raises `UsageError` for names that two have (small and
    capital letters are the same on some file systems), for no name, for one that no file may have, and for what is no
    collection of checkpoints.
    """
    if isinstance(tuned, str | os.PathLike | Checkpoint) or not isinstance(tuned, Iterable):
        raise UsageError("the fine-tunes are several checkpoints, or named ones; extract takes a single one")
    pairs: list[tuple[str, Any]]
    if isinstance(tuned, Mapping):
        pairs = list(tuned.items())
    else:
        pairs = [(_name(item, at, needed), item) for at, item in enumerate(tuned)]
    found: dict[str, tuple[str, CheckpointLike]] = {}
    for name, item in pairs:
        if not isinstance(name, str) or (needed and not is_plain_file_name(name + ENDING)):
            raise UsageError(f"{name!r}: no name that a file may have; name the fine-tune otherwise")
        folded = alike(name)
        if folded in found:
            raise UsageError(
                f"{_called(found[folded][1])} and {_called(item)} would both become {name}{ENDING}: name the folders "
                "they are in, or store them one by one"
            )
        found[folded] = name, item
    return dict(found.values())


def _name(item: CheckpointLike, at: int, needed: bool) -> str:
    path = (item.folder or item.path) if isinstance(item, Checkpoint) else item
    if isinstance(path, str | os.PathLike):
        return own_name(path)
    if needed:
        raise UsageError(f"fine-tune {at} is in memory, where it has no name: give a mapping from names to fine-tunes")
    return f"fine-tune {at}"


def _called(item: CheckpointLike) -> str:
    if isinstance(item, Checkpoint):
        return item.source
    return os.fspath(item) if isinstance(item, str | os.PathLike) else "a fine-tune in memory"


def _refuse_outputs(
    folder: Path,
    outputs: Mapping[str, Path | None],
    base: Checkpoint,
    tuned: Mapping[str, CheckpointLike],
    force: bool,
) -> None:
    """Raise `UsageError` for outputs that exist or are inputs, and for a folder that is none or cannot be made."""
    if not folder.is_dir():
        if os.path.lexists(folder):
            raise UsageError(f"{folder}: no folder; several diffs are written into one")
        if folder.suffix.casefold() == ENDING:
            raise UsageError(f"{folder}: called as a diff; several are written into a folder, which has another name")
        if not folder.absolute().parent.is_dir():
            raise UsageError(f"{folder}: its folder {folder.parent} does not exist")
        return
    for name, output in outputs.items():
        assert output is not None
        item = tuned[name]
        own = [Path(item)] if isinstance(item, str | os.PathLike) and not os.path.isdir(item) else []
        refuse_overwriting(output, [*base.files, *own], force, folder=False)


@contextlib.contextmanager
def _made_if_needed(folder: Path) -> Iterator[None]:
    """A folder that is there; made if it was not, and then removed again if nothing came into it."""
    new = not folder.is_dir()
    folder.mkdir(exist_ok=True)
    try:
        yield
    finally:
        if new:
            with contextlib.suppress(OSError):
                folder.rmdir()
