"""`diffpack train`: a model folder and labelled texts -> a task as a diff."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from .amounts import Share
from .describe import sizes
from .options import STDIO, CheckpointPath, OutputPath, Session, global_options
from .output import Report, emit, emit_json, fields, percent, safe, size
from .progress import watched

if TYPE_CHECKING:
    from diffpack.train import Trained

KEYS = {
    "path": "where the diff was written",
    "bytes": "its size",
    "weight_bytes": "its size without side files",
    "side_file_bytes": "what the side files (its config.json) in it take",
    "bytes_without_head": "its size without the head's tensors, which cost the same with every method",
    "share_of_base": "bytes of the file / bytes of the base's tensors",
    "weight_share": "weight_bytes / bytes of the base's tensors",
    "changed": "entries stored as changed, the head's and added modules' included",
    "scores.accuracy": "of the stored file applied to the base, on the dev texts",
    "scores.f1": "the same, F1 averaged over the labels",
    "scores.mcc": "the same, Matthews' correlation",
    "seconds": "training alone, without loading, storing and scoring; before an interruption too",
    "cpu_seconds": "the processor's time of all threads in it",
    "peak_memory": "highest resident bytes while training above those of the loaded model, or null where not known",
    "trained": "numbers trained (in the last stage)",
    "pool": "entries of the body, of which a density is a fraction",
    "settings": "object: the options (null: the method's own), and the stages with their epochs and learning rates",
    "base_bytes": "bytes of the base's tensors",
}
"""What `--json` prints; `a.b` is member b of the object a."""

_METHODS = (
    "sparse", "lt-sft", "spiel", "bitfit", "top-layers", "diff-pruning", "diff-pruning-structured", "non-adaptive",
    "full", "last-layer", "head-only", "adapters", "lora", "magnitude-pruning", "movement-pruning",
)  # fmt: skip
_PRECISIONS = ("fp32", "bf16")
_SELECTIONS = ("fisher", "gradient", "random", "smallest", "largest")
_POSITIVE = click.IntRange(min=1)


@click.command()
@click.option(
    "--model", required=True, type=CheckpointPath(), metavar="DIR", help="The base: a transformers model folder."
)
@click.option("--train", required=True, type=click.Path(), metavar="TSV", help="Texts to learn: text[, text2], label.")
@click.option(
    "--dev", required=True, type=click.Path(), metavar="TSV", help="Texts to score on, with the same columns."
)
@click.option("-o", "--output", required=True, type=OutputPath(), metavar="OUT", help="The diff to write.")
@click.option(
    "--method", type=click.Choice(_METHODS), default="sparse", show_default=True, help="What is trained, and how."
)
@click.option(
    "--density", type=Share(), default="0.005", show_default=True, metavar="D",
    help="Change this fraction of the body's entries (pruning: keep this fraction): 0.005 or 0.5%.",
)  # fmt: skip
@click.option(
    "--epochs", type=_POSITIVE, metavar="N", help="Passes over the data, each stage.  [default: the method's]"
)
@click.option("--batch-size", type=_POSITIVE, metavar="N", help="Texts a step.  [default: 32; diff pruning 8]")
@click.option(
    "--lr", type=float, metavar="X",
    help="Learning rate; lt-sft, non-adaptive: of the last stage, diff pruning: of the first.  [default: the method's]",
)  # fmt: skip
@click.option(
    "--find-lr", type=float, metavar="X", help="Of the full fine-tuning before (lt-sft, non-adaptive).  [default: 1e-4]"
)
@click.option("--max-length", type=int, default=128, show_default=True, metavar="N", help="Cut texts to N tokens.")
@click.option("--seed", type=int, default=0, show_default=True, metavar="N", help="Same seed (and threads), same bits.")
@click.option(
    "--values", type=click.Choice(("f16", "exact", "int8")),
    help="How changes are stored.  [default: f16; exact for magnitude- and movement-pruning, so that 0 stays 0]",
)  # fmt: skip
@click.option(
    "--selection", type=click.Choice(_SELECTIONS), default="fisher", show_default=True,
    help="How the method sparse picks its entries.",
)  # fmt: skip
@click.option(
    "--floor", type=Share(), default="0", show_default=True, metavar="D",
    help="Part of the density that each tensor is sure of.",
)  # fmt: skip
@click.option("--layers", type=_POSITIVE, default=2, show_default=True, metavar="N", help="How many, for top-layers.")
@click.option("--size", type=_POSITIVE, metavar="N", help="Adapters' bottleneck, LoRA's rank.  [default: 64; 8]")
@click.option(
    "--head-epochs", type=click.IntRange(min=0), metavar="N",
    help="Train the head alone first.  [default: 1 for sparse, else 0]",
)  # fmt: skip
@click.option(
    "--precision", type=click.Choice(_PRECISIONS), default="fp32", show_default=True,
    help="What training computes in; bf16: torch's autocast, the weights stay as they are.",
)  # fmt: skip
@click.option("--dropout", type=float, metavar="P", help="Of the model's dropout modules.  [default: as configured]")
@click.option("--penalty", type=float, metavar="X", help="Diff pruning's lambda.  [default: 42 / entries of the body]")
@click.option("--fixed-lr", type=float, metavar="X", help="Of diff pruning's last stage.  [default: 5 x the first's]")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint of a run of the same options, if there is one.")
@click.option(
    "--force", is_flag=True,
    help="Replace an output that exists; without --resume also the checkpoint of an interrupted run.",
)  # fmt: skip
@global_options
@click.pass_obj
def command(
    session: Session, model: str, train: str, dev: str, output: str, method: str, density: float, epochs: int | None,
    batch_size: int | None, lr: float | None, find_lr: float | None, max_length: int, seed: int, values: str | None,
    selection: str, floor: float, layers: int, size: int | None, head_epochs: int | None, precision: str,
    dropout: float | None, penalty: float | None, fixed_lr: float | None, resume: bool, force: bool,
) -> None:  # fmt: skip
    """Tune the model in DIR on labelled texts and store the task as a diff.

    The head is stored whole, of the body what the method changed. The scores are those of the stored file, applied
    to the base. Needs the extra `[train]`; nothing is loaded from a network. Each minute and after each stage
    OUT.checkpoint is written; an interrupted run leaves it behind, and --resume goes on from there.
    """
    if output == STDIO:
        raise click.UsageError("a task is written to a file, not to standard output: name one")
    with watched(session, "loading", "steps") as progress:
        from diffpack import train as trainer
        from diffpack.train.preparation import prepare

        options = trainer.TrainOptions(
            method=method, density=density, epochs=epochs, batch_size=batch_size, lr=lr, max_length=max_length,
            seed=seed, values=values, selection=selection, floor=floor, layers=layers, size=size,
            head_epochs=head_epochs, precision=precision, dropout=dropout, penalty=penalty,
            fixed_lr=fixed_lr, find_lr=find_lr,
        )  # fmt: skip
        session.output = output
        prepare(model, train, dev, output, resume=resume, force=force)  # mistakes are told before torch is loaded
        import_trainer(session)
        done = trainer.train(model, train, dev, output, options, resume=resume, force=force, progress=progress)
        session.output, session.written = None, output
    report = describe(done)
    if session.json:
        emit_json(report)
    elif not session.quiet:
        emit(as_text(report))


def import_trainer(session: Session) -> None:
    """Load torch and use as many threads as asked. Raises `MissingDependencyError` without it."""
    try:
        import torch
    except ImportError:
        from diffpack.errors import MissingDependencyError

        raise MissingDependencyError("torch", "train", "diffpack train") from None
    if session.threads:
        torch.set_num_threads(session.threads)


def describe(done: Trained) -> Report:
    """What was trained, as `--json` prints it."""
    return {
        "path": str(done.output),
        "bytes": done.stored.nbytes,
        "weight_bytes": done.stored.weight_bytes,
        "side_file_bytes": done.stored.side_file_bytes,
        "bytes_without_head": done.bytes_without_head,
        "share_of_base": done.stored.share_of_base,
        "weight_share": done.stored.weight_share,
        "changed": done.stored.changed,
        "scores": done.scores,
        **asdict(done.cost),
        "trained": done.trained,
        "pool": done.pool,
        "settings": done.settings,
        "base_bytes": done.stored.base_bytes,
    }


def as_text(report: Report) -> str:
    """The same for people."""
    settings, scores = report["settings"], report["scores"]
    stages = ", ".join(f"{item['name']} {item['epochs']} x {item['lr']:g}" for item in settings["stages"])
    memory = "" if report["peak_memory"] is None else f", {size(report['peak_memory'])} above the model"
    effort = f"{report['seconds']:.0f} s{memory}"
    bare = report["bytes_without_head"] - report["side_file_bytes"]
    rows = [
        ("scores", ", ".join(f"{name} {value:.4f}" for name, value in scores.items())),
        ("trained", f"{report['trained']:,} numbers (the body has {report['pool']:,}), {effort}"),
        ("stages", f"{stages} (epochs x learning rate)"),
        ("stored", f"{report['changed']:,} entries; {size(bare)} without the head"),
    ]
    title = f"{safe(report['path'])}: {sizes(report)}, {percent(report['weight_share'])} of the base"
    return "\n".join([f"{title} ({settings['method']})", *fields(rows)])
