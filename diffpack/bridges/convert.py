"""convert: a diff -> another tool's format, or the other way round."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

from diffpack.algebra.resolve import by_own_names
from diffpack.bridges.bridge import Export, Import
from diffpack.bridges.registry import detect, find_bridge, format_of_output
from diffpack.checkpoints import Checkpoint, CheckpointLike, open_checkpoint
from diffpack.checkpoints.overwriting import refuse_overwriting
from diffpack.diff.diff import Diff, DiffLike, files_behind, open_diffs
from diffpack.diff.entries import check_profile
from diffpack.diff.publish import write_diff
from diffpack.errors import BaseNeededError, CheckpointError, CorruptFileError, UsageError, WrongBaseError
from diffpack.format.frame import MAGIC
from diffpack.support.inputs import Inputs
from diffpack.support.memory import memory_told
from diffpack.support.parallel import Progress
from diffpack.tensors.rename import Rename
from diffpack.tensors.rename_patterns import Renaming, checked, only_prefixes, rename_rules, unused

_DIFF = "diffpack"


@dataclass(frozen=True)
class Converted:
    """What convert did.

    `direction` is "import" or "export", `format` the other tool's. `exact` says for an import whether the diff is
    exact, for an export whether the output gives the diff's result bit for bit. `notes` say what was not carried over.
    `diff` is the diff of an import.
    """

    output: Path | None
    direction: str
    format: str
    exact: bool
    nbytes: int
    notes: tuple[str, ...]
    diff: Diff | None = None


@memory_told
def convert(
    source: DiffLike | Sequence[DiffLike],
    output: str | os.PathLike[str] | None = None,
    *,
    to: str | None = None,
    from_: str | None = None,
    base: CheckpointLike | None = None,
    options: Mapping[str, str] | None = None,
    rename: Renaming = (),
    profile: str = "compact",
    metadata: Mapping[str, str] | None = None,
    clip: bool = False,
    threads: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Converted:
    """Write a diff in another tool's format, or read such a format as a diff.

    Formats are named in `FORMATS` (docs/bridges.md says what each holds). `from_` names that of `source`, `to` that
    of the output; each is found by itself where that is safe. Several sources (for "hdf5") are diffs. `base` is needed
    wherever one side stores values and the other differences; an import records it as the diff's base. `rename` gives
    (old, new) pairs or a function that lead from the base's names to those the other tool uses, as in `extract`; it,
    `profile`, `metadata` and `clip` are for imports. `clip` ends sums that the result's dtype cannot hold at its
    largest finite number; without it they are refused. `options` are the format's own.

    Outputs appear whole or not at all. Without `output` an imported diff lives in a temporary file.

    Raises `UsageError` (what the format cannot hold, sums beyond a dtype, a source that would change nothing and does
    not say so), `BaseNeededError`, `WrongBaseError` (the base is not the one the source speaks of), `CorruptFileError`
    (a damaged source), `CheckpointError`, `MissingDependencyError`.
    """
    renaming = checked(rename)
    plan = plan_conversion(
        source, output, to=to, from_=from_, options=options, rename=renaming, profile=profile, metadata=metadata,
        clip=clip, force=force,
    )  # fmt: skip
    checkpoint = None if base is None else open_checkpoint(base)
    if plan.path is None:
        assert output is not None
        return _export(plan, output, checkpoint, dict(options or {}), threads, force)
    rules = _rules(renaming, checkpoint, plan.path)
    job = Import(
        plan.format, plan.path, checkpoint, dict(options or {}), rules, profile, dict(metadata or {}), threads,
        progress, clip,
    )  # fmt: skip
    if checkpoint is not None:
        job.notes.extend(unused(renaming, checkpoint.tensors, checkpoint.source))
    return _import(job, output, force)


@dataclass(frozen=True)
class Plan:
    """What is converted: `sources` into the other tool's `format`, or the file or folder at `path` from it."""

    sources: Sequence[DiffLike]
    format: str
    path: Path | None


def plan_conversion(
    source: DiffLike | Sequence[DiffLike],
    output: str | os.PathLike[str] | None = None,
    *,
    to: str | None = None,
    from_: str | None = None,
    options: Mapping[str, str] | None = None,
    rename: Renaming = (),
    profile: str = "compact",
    metadata: Mapping[str, str] | None = None,
    clip: bool = False,
    force: bool = False,
) -> Plan:
    """Say what `convert` would do with these, without the base. Raises as it does for what it cannot do."""
    sources = list(cast(Sequence[DiffLike], source)) if isinstance(source, list | tuple) else [cast(DiffLike, source)]
    if not sources:
        raise UsageError("nothing to convert")
    check_profile(profile)
    exporting = all(_is_diff(item) for item in sources) and from_ in (None, _DIFF)
    if exporting:
        _refuse_on_export({"rename": rename, "metadata": metadata, "profile": profile != "compact", "clip": clip})
        if output is None:
            raise UsageError("an export needs an output")
        name = to or format_of_output(Path(output))
        if find_bridge(name).write is None:
            raise UsageError(f"{name} is only read, not written")
    else:
        if to not in (None, _DIFF) or len(sources) > 1:
            raise UsageError("one side of a conversion is a diff: convert to a diff first, one source at a time")
        name = from_ or detect(_path_of(sources[0]))
        if find_bridge(name).read is None:
            raise UsageError(f"{name} is only written, not read")
    bridge = find_bridge(name)
    _check_options(name, options, bridge.write_options if exporting else bridge.read_options)
    if output is not None:
        named = [Path(item) for item in sources if not isinstance(item, Diff | bytes)]
        refuse_overwriting(Path(output), [item for item in named if item.is_file()], force, folder=exporting)
    return Plan(sources, name, None if exporting else _path_of(sources[0]))


def _rules(renaming: Renaming, base: Checkpoint | None, path: Path) -> Rename:
    """The prefix rules for the base's names. Raises `BaseNeededError` for patterns and functions without one."""
    if base is None and not only_prefixes(renaming):
        raise BaseNeededError(f"{path}: patterns and functions rename the base's tensors: give the base")
    names = () if base is None else base.tensors
    return rename_rules(renaming, names, str(path) if base is None else base.source)


def _refuse_on_export(given: Mapping[str, object]) -> None:
    """Raise `UsageError` for what is said of a diff that is written, where one is read."""
    for what, value in given.items():
        if value:
            raise UsageError(f"{what} is for a diff that is written; here one is read")


def _import(job: Import, output: str | os.PathLike[str] | None, force: bool) -> Converted:
    bridge, path, base = find_bridge(job.format), job.source, job.base
    assert bridge.read is not None  # `plan_conversion` has seen to it
    read = [item for item in path.iterdir() if item.is_file()] if path.is_dir() else [path]
    inputs = Inputs([*read, *(base.files if base else [])])
    diff = write_diff(output, inputs, force, partial(_read, bridge.read, job))
    notes = (*(base.notes if base else ()), *job.notes)
    target = None if output is None else Path(output)
    return Converted(target, "import", job.format, diff.exact, diff.nbytes, notes, diff)


def _read(read: Callable[[Import, BinaryIO], None], job: Import, file: BinaryIO) -> None:
    """Read the source; errors about it get hints about it, since no diff is at fault."""
    try:
        read(job, file)
    except CorruptFileError as error:
        if not error.rule and error.hint is None:
            error.hint = f"as {job.format} it cannot be: fetch it again, or save it anew with the tool that made it"
        raise
    except WrongBaseError as error:
        if error.hint is None:
            error.hint = "--base names the model it was made for, --rename leads from that one's names to its own"
        raise


def _export(
    plan: Plan,
    output: str | os.PathLike[str],
    base: Checkpoint | None,
    options: Mapping[str, str],
    threads: int | None,
    force: bool,
) -> Converted:
    name, bridge, path = plan.format, find_bridge(plan.format), Path(output)
    assert bridge.write is not None  # `plan_conversion` has seen to it
    diffs = open_diffs(plan.sources)
    inputs = Inputs(files_behind(diffs, base))
    refuse_overwriting(path, inputs.paths, force)
    diffs = [by_own_names(diff, base, threads) for diff in diffs]
    names = [_name_of(diff) for diff in diffs]
    job = Export(name, diffs, names, path, base, options, inputs, threads, replace=force, named=os.fspath(output))
    exact = bridge.write(job)
    return Converted(path, "export", name, exact, _bytes_of(path), (*(base.notes if base else ()), *job.notes))


def _is_diff(source: DiffLike) -> bool:
    if isinstance(source, Diff | bytes):
        return True
    path = Path(source)
    if not os.path.isfile(path):  # which pathlib's does not tell of names that no file can have
        if os.path.exists(path) and not os.path.isdir(path):
            raise CheckpointError(f"{path}: no regular file: what is in it is read in any order; save it as a file")
        return False
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def _path_of(source: DiffLike) -> Path:
    if isinstance(source, Diff | bytes):
        raise UsageError("a diff is converted to another format, not from one")
    return Path(source)


def _name_of(diff: Diff) -> str:
    """What a diff is called in a file of many: its note `task`, else its file name without the ending."""
    return diff.metadata.get("task") or Path(diff.name).stem


def _check_options(name: str, options: Mapping[str, str] | None, known: Mapping[str, str]) -> None:
    for key in options or {}:
        if key not in known:
            raise UsageError(f"{name} has no option {key!r}; it has {', '.join(known) or 'none'}")


def _bytes_of(path: Path) -> int:
    files = [item for item in path.rglob("*") if item.is_file()] if path.is_dir() else [path]
    return sum(item.stat().st_size for item in files)
