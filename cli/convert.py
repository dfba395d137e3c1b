"""`diffpack convert`: a diff in another tool's format, or the other way round."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from .options import (
    Assignment,
    CheckpointPath,
    DiffPath,
    OutputPath,
    Session,
    clip_option,
    force_option,
    global_options,
    opened,
    rename_option,
)
from .output import Report, emit, emit_json, fields, mode, notes, plural, safe, size
from .progress import watched
from .stored import as_text, describe
from .written import notes_of

KEYS = {
    "path": "where the output was written",
    "direction": "`import` (to a diff) or `export` (from diffs)",
    "format": "the other tool's format",
    "bytes": "the size of the output, of all files of a folder together",
    "exact": "of an import: whether the diff is exact; of an export: whether it gives the diff's result bit for bit",
    "notes": "what was not carried over, and remarks about the inputs",
    "diff": "of an import: object with the members `extract` prints; else null",
}
"""What `--json` prints."""

_FORMATS = ("sparse-safetensors", "sglang-delta", "composable-sft", "peft-shira", "peft-lora", "hdf5", "scipy")
_PROFILES = ("compact", "portable")


@click.command()
@click.argument("sources", nargs=-1, required=True, type=DiffPath(), metavar="IN...")
@click.option("-o", "--output", required=True, type=OutputPath(), metavar="OUT", help="The file or folder to write.")
@click.option(
    "--to", type=click.Choice(_FORMATS), metavar="FORMAT",
    help="The format to write a diff in.  [default: by OUT's ending, where it tells]",
)  # fmt: skip
@click.option(
    "--from", "from_", type=click.Choice(_FORMATS), metavar="FORMAT",
    help="The format of IN, to read as a diff.  [default: found by itself, where it tells]",
)  # fmt: skip
@click.option(
    "--base", type=CheckpointPath(), metavar="BASE",
    help="The base, where one side has values and the other differences; the diff read is one of it.",
)  # fmt: skip
@click.option(
    "--set", "settings", multiple=True, type=Assignment(), metavar="KEY=VALUE",
    help="An option of the format (docs/bridges.md). Repeatable.",
)  # fmt: skip
@rename_option("Base names starting with OLD start with NEW in IN;")
@click.option(
    "--profile", type=click.Choice(_PROFILES), default="compact", show_default=True,
    help="Of a diff written: portable is zstd alone, for readers without pco.",
)  # fmt: skip
@clip_option
@click.option(
    "--meta", multiple=True, type=Assignment(), metavar="KEY=VALUE", help="Keep a note in a diff. Repeatable."
)
@force_option
@global_options
@click.pass_obj
def command(
    session: Session, sources: tuple[str, ...], output: str, to: str | None, from_: str | None, base: str | None,
    settings: tuple[tuple[str, str], ...], rename: tuple[tuple[Any, str], ...], profile: str,
    clip: bool, meta: tuple[tuple[str, str], ...], force: bool,
) -> None:  # fmt: skip
    """Write a diff in another tool's format, or read such a format as a diff.

    Formats: sparse-safetensors (TRL, vLLM, prime-rl), sglang-delta (slime, SGLang, ModelExpress), composable-sft,
    peft-shira, peft-lora, hdf5 (several diffs in one file), scipy. What a format cannot hold is refused, or told as a
    note.
    """
    if "-" in (*sources, output):
        raise click.UsageError("standard input and output carry diffs, not other formats: name files")
    metadata, options = notes_of(meta), _options(settings)
    from diffpack.bridges.convert import plan_conversion

    plan_conversion(
        list(sources), output, to=to, from_=from_, options=options, rename=rename, profile=profile,
        metadata=metadata, clip=clip, force=force,
    )  # fmt: skip
    import diffpack

    session.output = output
    with watched(session, "converting") as progress:
        done = diffpack.convert(
            list(sources), output, to=to, from_=from_, base=opened(session, base), options=options,
            rename=rename, profile=profile, metadata=metadata, clip=clip, threads=session.threads, force=force,
            progress=progress,
        )  # fmt: skip
        session.output, session.written = None, output
        diff = None if done.diff is None else describe(done.diff, output, [], progress)
    report: Report = {
        "path": output,
        "direction": done.direction,
        "format": done.format,
        "bytes": done.nbytes,
        "exact": done.exact,
        "notes": list(done.notes),
        "diff": diff,
    }
    if session.json:
        emit_json(report)
    elif not session.quiet:
        emit("\n".join([_title(report), *fields([("note", safe(note)) for note in _told(done.notes)])]))
        if diff is not None:
            emit(as_text(diff).partition("\n")[2])
    notes(session, [] if session.json else done.notes[_MOST_TOLD:])


_MOST_TOLD = 5


def _told(remarks: Sequence[str]) -> Sequence[str]:
    return remarks[:_MOST_TOLD]


def _title(report: Report) -> str:
    name, what = safe(report["path"]), report["format"]
    if report["direction"] == "import":
        return f"{name}: {size(report['bytes'])}, from {what}, {mode(report['exact'])}"
    how = "the result stays the same bit for bit" if report["exact"] else "lossy"
    return f"{name}: {size(report['bytes'])}, as {what}, {how}"


def _options(settings: Sequence[tuple[str, str]]) -> dict[str, str]:
    options = dict(settings)
    if len(options) < len(settings):
        raise click.UsageError(f"--set: a key stands there twice among {plural(len(settings), 'option')}")
    return options
