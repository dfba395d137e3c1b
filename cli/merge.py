"""`diffpack merge`: several diffs of one base -> one."""

from __future__ import annotations

from typing import Any

import click

from .amounts import Share
from .destination import check_output
from .options import Session, clip_option, global_options, opened
from .output import Report, fields
from .progress import Callback
from .written import KEYS as WRITTEN_KEYS
from .written import diffs_argument, needed_base, notes_of, read_diffs, write, writing_options

KEYS = {
    **WRITTEN_KEYS,
    "shared": "entries that two or more diffs change (after pruning)",
    "conflicts": "of these, entries they change in different directions",
}
"""What `--json` prints."""

_METHODS = (
    "linear", "average", "magnitude", "ties", "dare_linear", "dare_ties", "della", "della_linear", "breadcrumbs",
    "breadcrumbs_ties", "sce",
)  # fmt: skip
_VALUES = ("f32", "f16", "bf16", "int8")
_RESCALES = ("expected", "norm", "none")


class Numbers(click.types.StringParamType):
    """Numbers with commas between them: `0.5,0.3,0.2`."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read them."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not numbers with commas between them (0.5,0.3)", param, ctx)


@click.command()
@diffs_argument
@needed_base
@click.option(
    "--method", type=click.Choice(_METHODS), default="linear", show_default=True, metavar="M",
    help=f"One of {', '.join(_METHODS)}.",
)  # fmt: skip
@click.option("--weights", type=Numbers(), metavar="W,...", help="A number for each diff.  [default: 1 each]")
@click.option(
    "--normalize/--no-normalize", default=None, help="Divide by the weights that count.  [default: as the method does]"
)
@click.option(
    "--density", type=Share(), metavar="D",
    help="Keep this fraction of each tensor's entries of each diff.  [default: all of them]",
)  # fmt: skip
@click.option("--scale", type=float, default=1.0, metavar="X", help="Multiply the merged change (lambda).")
@click.option("--seed", type=int, default=0, metavar="N", help="For dare and della: which entries are dropped.")
@click.option(
    "--gamma", type=Share(), default=0.01, metavar="D", help="For breadcrumbs: the fraction of outliers left out."
)
@click.option("--epsilon", type=Share(), metavar="D", help="For della: how far chances reach around the density.")
@click.option(
    "--rescale", type=click.Choice(_RESCALES), default="expected", show_default=True,
    help="For dare and della: how kept values make up for dropped ones; norm: as mergekit does.",
)  # fmt: skip
@click.option("--values", type=click.Choice(_VALUES), help="How merged values are stored.  [default: f32]")
@clip_option
@writing_options
@global_options
@click.pass_obj
def command(
    session: Session, /, diffs: tuple[str, ...], base: str | None, output: str, profile: str,
    meta: tuple[tuple[str, str], ...], force: bool, **settings: Any,
) -> None:  # fmt: skip
    """Merge diffs of one base into one, without building a model.

    The result is lossy: values to add to the base. Exact diffs need --base, which makes floats of their steps; with
    it the result's fingerprint is recorded, and sums that its dtype cannot hold are refused. Tensors have the names of
    the first DIFF. One DIFF may be - for standard input.
    """
    metadata, sources = notes_of(meta), read_diffs(diffs)
    check_output(session, output, [*diffs, base], force)
    import diffpack

    checkpoint = opened(session, base)
    remarks: list[str] = []

    def make(path: str | None, progress: Callback) -> diffpack.Diff:
        return diffpack.merge(
            sources, path, base=checkpoint, profile=profile, metadata=metadata, notes=remarks, threads=session.threads,
            force=force, progress=progress, **settings,
        )  # fmt: skip

    write(session, output, "merging", make, _meetings, checkpoints=[checkpoint], remarks=remarks)


def _meetings(report: Report) -> tuple[Report, str]:
    """Where the diffs met, as members and as lines of text."""
    recipe = report["recipe"]
    counts = {key: int(recipe.get(key, 0)) for key in ("shared", "conflicts")}
    row = f"{counts['shared']:,} entries changed by several, {counts['conflicts']:,} of them in different directions"
    return counts, "\n" + "\n".join(fields([("met", row)]))
