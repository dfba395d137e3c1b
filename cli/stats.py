"""`diffpack stats`: what diffs change and what they cost, each and together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from .destination import check_output
from .errors import report as tell_error
from .options import (
    STDIO,
    DiffPath,
    OutputPath,
    Session,
    Text,
    force_option,
    global_options,
    open_checkpoint,
    optional_base,
    read_diff,
)
from .output import emit, emit_json, one_line, warn
from .progress import watched
from .tables import text_of

if TYPE_CHECKING:
    from diffpack.report.budget import Budget
    from diffpack.report.contents.histograms import DiffHistograms
    from diffpack.report.contents.overlap import TaskOverlap
    from diffpack.report.gate import Excess
    from diffpack.report.given_base import GivenBase
    from diffpack.report.stats import Stats

_BY = ("layer", "module", "dtype")
_SORTS = ("name", "size", "changed", "density", "share")
_FAILED = 1


def keys() -> dict[str, str]:
    """What `--json` prints; `a[].b` is member b of every item of the list a."""
    from diffpack.report.rows import words

    return words()


@click.command()
@click.argument("diffs", nargs=-1, required=True, type=DiffPath(), metavar="DIFF...")
@optional_base
@click.option("--sort", type=click.Choice(_SORTS), help="Order of the diffs: by name, or the largest first.")
@click.option("--count", is_flag=True, help="Count changed entries where the manifest does not (decodes the diffs).")
@click.option("--tensors", is_flag=True, help="Also list every tensor.")
@click.option("--by", type=click.Choice(_BY), help="Also sum the tensors by layer, by module or by dtype.")
@click.option("--budget", type=Text(), metavar="SIZE", help="How many more such diffs fit: 512MB, base included.")
@click.option(
    "--fail-over", type=Text(), metavar="SIZE", help="Exit with 1 if a diff is larger: 5MB, or 1% of its base's bytes."
)
@click.option("--fail-over-total", type=Text(), metavar="SIZE", help="The same of all diffs together.")
@click.option("--csv", is_flag=True, help="Print comma-separated values: a line a diff, or a tensor, or a sum.")
@click.option("--markdown", is_flag=True, help="Print tables in Markdown.")
@click.option("--html", type=OutputPath(), metavar="FILE", help="Also write a page to read; - prints it alone.")
@click.option("--overlap", is_flag=True, help="On that page: where diffs change the same entries (reads their data).")
@click.option("--histograms", is_flag=True, help="On that page: how far entries move (reads data; --base tells more).")
@force_option
@global_options
@click.pass_obj
def command(
    session: Session, diffs: tuple[str, ...], base: str | None, sort: str | None, count: bool, tensors: bool,
    by: str | None, budget: str | None, fail_over: str | None, fail_over_total: str | None, csv: bool, markdown: bool,
    html: str | None, overlap: bool, histograms: bool, force: bool,
) -> None:  # fmt: skip
    """Show what each DIFF changes and costs, and what all of them cost against full copies.

    A DIFF may be a folder: all *.dpk in it and in its folders; one DIFF may be - for standard input. Diffs that
    continue one another are one model with a history. Reads manifests alone, unless tensors are to be counted.
    A diff that cannot be counted is told, and the exit code is 1.
    """
    if diffs.count(STDIO) > 1:
        raise click.UsageError("standard input is one diff, not several")
    if session.json + csv + markdown > 1:
        raise click.UsageError("--json, --csv and --markdown are three ways to print, choose one")
    if (overlap or histograms) and html is None:
        raise click.UsageError("--overlap and --histograms are for the page: name it with --html FILE")
    if html == STDIO and session.json + csv + markdown:
        raise click.UsageError("--html - prints the page alone")
    if csv and tensors and by:
        raise click.UsageError("--csv has lines of tensors or of sums: choose one of --tensors and --by")
    if html not in (None, STDIO):
        check_output(session, html, [base, *diffs], force)
    sources = [read_diff(diff) for diff in diffs]
    from diffpack.report.budget import Budget
    from diffpack.report.document import document
    from diffpack.report.gate import Gate
    from diffpack.report.given_base import GivenBase
    from diffpack.report.markdown import markdown as markdown_of
    from diffpack.report.rows import plain
    from diffpack.report.spreadsheet import spreadsheet
    from diffpack.report.stats import stats
    from diffpack.report.tables import tables_of
    from diffpack.support.sizes import whole_size

    gate = Gate.of(fail_over, fail_over_total)  # what is no size is refused before a file is opened
    room = None if budget is None else whole_size(budget)
    with watched(session, "counting"):
        given = None if base is None else GivenBase(open_checkpoint(session, base), session.threads)  # hashed once
        found = stats(
            sources, given, tensors=bool(count or tensors or by or html), keep_going=True,
            threads=session.threads,
        )  # fmt: skip
        if len(found.problems) == 1 and not found.diffs:
            raise found.problems[0].error
    ordered = found if sort is None else found.sorted(sort)
    exceeded = gate.exceeded(ordered)
    left = None if room is None else Budget.of(room, ordered)
    if html is not None:
        text = _page(session, ordered, sources, given, left, exceeded, overlap=overlap, histograms=histograms)
        _write(session, html, text, force=force)
    if html != STDIO:  # else the page alone was asked for
        told = document(
            ordered, tensors=tensors, by=by, budget=left, exceeded=exceeded, base_checked=base is not None,
        )  # fmt: skip
        if session.json:
            emit_json(plain(told))
        elif csv:
            emit(spreadsheet(told).rstrip("\n"))
        else:
            emit(markdown_of(tables_of(told)).rstrip("\n") if markdown else text_of(tables_of(told)))
    for problem in found.problems:
        tell_error(problem.error, session)
    for excess in exceeded:
        warn(f"diffpack: {one_line(str(excess))}")
    if found.problems or exceeded:
        click.get_current_context().exit(_FAILED)


def _page(
    session: Session, found: Stats, sources: Sequence[Any], base: GivenBase | None, budget: Budget | None,
    exceeded: Sequence[Excess], *, overlap: bool, histograms: bool,
) -> str:  # fmt: skip
    """The page, with what of the diffs' data was asked for."""
    from diffpack.report.html.page import page

    met: Sequence[TaskOverlap] = ()
    moved: Sequence[DiffHistograms] = ()
    if overlap:
        from diffpack.report.contents.overlap import overlaps

        with watched(session, "comparing") as progress:
            met = overlaps(sources, base, threads=session.threads, progress=progress)
    if histograms:
        from diffpack.report.contents.histograms import histograms as measured

        with watched(session, "measuring") as progress:
            moved = measured(sources, base, threads=session.threads, progress=progress)
    return page(found, budget=budget, exceeded=exceeded, overlaps=met, histograms=moved)


def _write(session: Session, target: str, text: str, *, force: bool) -> None:
    """Write the page, whole or not at all."""
    if target == STDIO:
        emit(text.rstrip("\n"))
        return
    from pathlib import Path

    from diffpack.support.atomic import atomic_file

    session.output = target
    with atomic_file(Path(target), replace=force) as file:
        file.write(text.encode())
    session.output, session.written = None, target
