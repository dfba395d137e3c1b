"""`diffpack merge`: several diffs of one base -> one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from .amounts import Share
from .destination import check_output
from .options import (
    DiffPath,
    Session,
    Text,
    clip_option,
    global_options,
    open_checkpoint,
    opened,
)
from .output import Report, fields
from .per_tensor import Given, PerTensorNumbers, Setting, for_all, per_diff, taken
from .progress import Callback
from .written import KEYS as WRITTEN_KEYS
from .written import needed_base, notes_of, read_diffs, write, writing_options

if TYPE_CHECKING:
    from diffpack import Checkpoint

KEYS = {
    **WRITTEN_KEYS,
    "shared": "entries that two or more diffs change (after pruning)",
    "conflicts": "of these, entries they change in different directions",
}
"""What `--json` prints."""

_METHODS = (
    "task_arithmetic", "linear", "average", "magnitude", "ties", "dare_linear", "dare_ties", "della", "della_linear",
    "breadcrumbs", "breadcrumbs_ties", "sce", "slerp",
)  # fmt: skip
_DEFAULT = "task_arithmetic"
_VALUES = ("f32", "f16", "bf16", "int8")
_RESCALES = ("expected", "norm", "none")
_DIFF_SUFFIX = ".dpk"
_OF_THE_FILE = ("method", "weights", "weight", "normalize", "density", "scale", "t", "gamma", "epsilon", "rescale")
"""What a configuration file says, and options must not say again."""
_PATTERN = "With *, ? or [ it fits whole names, else a part of them."


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


def _share(text: str) -> float:
    return float(text[:-1]) / 100 if text.endswith("%") else float(text)


@click.command()
@click.argument("diffs", nargs=-1, type=DiffPath(), metavar="DIFF...")
@needed_base
@click.option(
    "--config", type=click.Path(exists=True, dir_okay=False), metavar="FILE",
    help="Merge as a YAML file of mergekit says, which names the diffs, or models to make them of.",
)  # fmt: skip
@click.option(
    "--method", type=click.Choice(_METHODS), metavar="M",
    help=f"One of {', '.join(_METHODS)}.  [default: {_DEFAULT}]",
)  # fmt: skip
@click.option("--weights", type=Numbers(), metavar="W,...", help="A number for each diff.  [default: 1 each]")
@click.option(
    "--weight", multiple=True, type=PerTensorNumbers(), metavar="[DIFF][:PATTERN]=W[,W...]",
    help="The weight of one diff, of the tensors a pattern fits (the first that does), or both; several numbers are "
    "for the layers, from first to last. Repeatable.",
)  # fmt: skip
@click.option(
    "--normalize/--no-normalize", default=None, help="Divide by the weights that count.  [default: as the method does]"
)
@click.option(
    "--density", multiple=True, type=PerTensorNumbers(_share), metavar="[[DIFF][:PATTERN]=]D[,D...]",
    help="Keep this fraction of each tensor's entries of each diff, or of one diff or pattern, as --weight. "
    "Repeatable.  [default: all of them]",
)  # fmt: skip
@click.option("--scale", "--lambda", "scale", type=float, default=1.0, metavar="X", help="Multiply the merged change.")
@click.option(
    "--t", multiple=True, type=PerTensorNumbers(), metavar="[:PATTERN=]T[,T...]",
    help="For slerp: how far to go from the first diff (0) to the second (1). Repeatable.",
)  # fmt: skip
@click.option("--seed", type=int, default=0, metavar="N", help="For dare and della: which entries are dropped.")
@click.option(
    "--gamma", type=Share(), default=0.01, metavar="D", help="For breadcrumbs: the fraction of outliers left out."
)
@click.option(
    "--epsilon", type=Share(), metavar="D",
    help="For della: how far chances reach around the density. For sce: mean squares below it weigh alike (mergekit: "
    "1e-6).",
)  # fmt: skip
@click.option(
    "--rescale", type=click.Choice(_RESCALES), default="expected", show_default=True,
    help="For dare and della: how kept values make up for dropped ones; norm: as mergekit does.",
)  # fmt: skip
@click.option(
    "--exclude", multiple=True, type=Text(), metavar="PATTERN",
    help=f"Leave tensors as the base has them. {_PATTERN} Repeatable.",
)  # fmt: skip
@click.option(
    "--take", multiple=True, type=Text(), metavar="PATTERN=DIFF",
    help="Take tensors from one diff as they are, and its config and tokenizer with them. Repeatable.",
)  # fmt: skip
@click.option(
    "--mix", multiple=True, type=Text(), metavar="PATTERN",
    help="Average tensors that each diff brings anew, as heads of different tasks. Repeatable.",
)  # fmt: skip
@click.option("--values", type=click.Choice(_VALUES), help="How merged values are stored.  [default: f32]")
@clip_option
@writing_options
@global_options
@click.pass_obj
def command(
    session: Session, /, diffs: tuple[str, ...], base: str | None, config: str | None, output: str, profile: str,
    meta: tuple[tuple[str, str], ...], force: bool, exclude: tuple[str, ...], take: tuple[str, ...],
    mix: tuple[str, ...], values: str | None, clip: bool, seed: int, **settings: Any,
) -> None:  # fmt: skip
    """Merge diffs of one base into one, without building a model.

    The result is lossy: values to add to the base. Exact diffs need --base, which makes floats of their steps; with
    it the result's fingerprint is recorded, and sums that its dtype cannot hold are refused. Tensors have the names of
    the first DIFF. One DIFF may be - for standard input. The words are mergekit's: task_arithmetic adds up, linear
    averages.
    """
    if config is not None:
        _check_alone(diffs, settings)
    elif not diffs:
        raise click.UsageError("name the diffs to merge, or a file with --config")
    metadata = notes_of(meta)
    check_output(session, output, [*diffs, base, config], force)
    remarks: list[str] = []
    if config is None:
        options, sources = _chosen(diffs, settings), read_diffs(diffs)
        _check(options, len(diffs), seed)
        import diffpack

        checkpoint = opened(session, base)
    else:
        import diffpack

        options, diffs, sources, checkpoint = _configured(session, config, base, remarks)
    wishes: dict[str, Any] = {"exclude": exclude, "take": taken(take, diffs), "mix": mix}
    options |= {name: patterns for name, patterns in wishes.items() if patterns}

    def make(path: str | None, progress: Callback) -> diffpack.Diff:
        return diffpack.merge(
            sources, path, base=checkpoint, values=values, clip=clip, seed=seed, profile=profile, metadata=metadata,
            notes=remarks, threads=session.threads, force=force, progress=progress, **options,
        )  # fmt: skip

    write(session, output, "merging", make, _meetings, checkpoints=[checkpoint], remarks=remarks)


def _check_alone(diffs: Sequence[str], settings: dict[str, Any]) -> None:
    """Raise `click.UsageError` if the line says what the configuration file says."""
    if diffs:
        raise click.UsageError("--config names the diffs itself")
    context = click.get_current_context()
    given = [name for name in settings if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE]
    if said := [name for name in _OF_THE_FILE if name in given]:
        raise click.UsageError(f"--config says what --{said[0].replace('scale', 'lambda')} says, too: say it there")


def _chosen(diffs: Sequence[str], settings: dict[str, Any]) -> dict[str, Any]:
    """The options of the library's function."""
    weight, density, t = (settings.pop(name) for name in ("weight", "density", "t"))
    weights = _weights(settings.pop("weights"), weight, diffs)
    chosen = {**settings, "method": settings["method"] or _DEFAULT, "weights": weights}
    chosen["density"] = density[0][1][0] if _is_plain(density) else _each("--density", density, diffs)
    if t:
        chosen["t"] = for_all("--t", t)
    return chosen


def _check(options: dict[str, Any], count: int, seed: int) -> None:
    """Let the library refuse numbers that do not fit, before a checkpoint is opened. Raises its `UsageError`."""
    from diffpack.algebra.merge.choices import choose
    from diffpack.algebra.merge.methods import find_method

    numbers = {"t": None} | {name: value for name, value in options.items() if name != "method"}
    choose(count, seed=seed, **numbers).check(find_method(options["method"]), count)


def _is_plain(given: Sequence[Given]) -> bool:
    return len(given) == 1 and not given[0][0] and len(given[0][1]) == 1


def _each(option: str, given: Sequence[Given], diffs: Sequence[str]) -> list[Setting | None] | None:
    return per_diff(option, given, diffs) if given else None


def _weights(plain: tuple[float, ...] | None, given: Sequence[Given], diffs: Sequence[str]) -> Any:
    """`--weights`, with what `--weight` says of patterns before them."""
    if not given:
        return plain
    own = [(diff, (number,)) for diff, number in zip(diffs, plain or (), strict=False)]
    if plain is not None and len(plain) != len(diffs):
        raise click.UsageError(f"{len(plain)} weights for {len(diffs)} diffs")
    return [1.0 if item is None else item for item in per_diff("--weight", [*given, *own], diffs)]


def _configured(
    session: Session, config: str, base: str | None, remarks: list[str]
) -> tuple[dict[str, Any], tuple[str, ...], list[Any], Checkpoint | None]:
    """What a configuration file asks for: options, names, diffs, and their base."""
    import diffpack
    from diffpack.algebra.merge import read_config

    asked = read_config(config)
    remarks += asked.notes
    checkpoint = opened(session, base or asked.base)
    diffs = [_diff_of(session, model, asked.base, checkpoint) for model in asked.models]
    found = [diffpack.open(diff) for diff in diffs]
    asked.check(found, checkpoint)
    return dict(asked.options), asked.models, found, checkpoint


def _diff_of(session: Session, model: str, named: str | None, base: Checkpoint | None) -> Any:
    """A model of a configuration file as a diff: the file, or one made now of a checkpoint."""
    import diffpack

    if model.endswith(_DIFF_SUFFIX):
        return model
    if base is None:
        raise click.UsageError(f"{model}: name the base, in the file (base_model) or with --base: a diff is made of it")
    if os.path.lexists(model) and base.source != model:
        tuned = open_checkpoint(session, model)
    elif model == named:  # the base is a model of its own there, which changes nothing
        tuned = base
    else:
        raise click.UsageError(f"{model}: no such diff or checkpoint here; models are not fetched from a hub")
    made = diffpack.extract(base, tuned, threads=session.threads)
    made.name = model  # what errors and notes are about
    return made


def _meetings(report: Report) -> tuple[Report, str]:
    """Where the diffs met, as members and as lines of text."""
    recipe = report["recipe"]
    counts = {key: int(recipe.get(key, 0)) for key in ("shared", "conflicts")}
    row = f"{counts['shared']:,} entries changed by several, {counts['conflicts']:,} of them in different directions"
    return counts, "\n" + "\n".join(fields([("met", row)]))
