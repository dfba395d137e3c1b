"""What can be told of a training run before torch is loaded: where it writes, its texts, its labels."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from diffpack.checkpoints.overwriting import refuse_overwriting
from diffpack.errors import CheckpointError, UsageError
from diffpack.support.atomic import place_of
from diffpack.train.labels import label_names
from diffpack.train.texts import Examples, read_tsv


@dataclass(frozen=True)
class Prepared:
    """The place of a run's checkpoint, beside the output, and its texts to learn from and to be scored on."""

    checkpoint: Path
    train: Examples
    dev: Examples


def prepare(
    model: str | os.PathLike[str],
    train: str | os.PathLike[str],
    dev: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    resume: bool = False,
    force: bool = False,
) -> Prepared:
    """Read the texts, and look whether anything would be in the output's way after the training.

    `force` lets an output that exists be replaced; a checkpoint that an interrupted run left beside it is gone on from
    with `resume`, replaced with `force` alone, and else refused. Raises `UsageError`, `CheckpointError`, and `OSError`
    if the output cannot be written or a file of texts cannot be read.
    """
    require_folder(model)
    path = Path(output)
    refuse_overwriting(path, [Path(model), Path(train), Path(dev)], force, folder=False)
    checkpoint = path.with_name(path.name + ".checkpoint")
    if checkpoint.exists() and not (resume or force):
        raise UsageError(
            f"{checkpoint}: a run was interrupted here; --resume goes on, --force without --resume begins anew"
        )
    try:
        with tempfile.TemporaryFile(dir=place_of(path).parent):
            pass
    except OSError as error:  # told of the output, not of a name nobody gave
        raise OSError(error.errno, error.strerror, str(path)) from None
    prepared = Prepared(checkpoint, read_tsv(train), read_tsv(dev))
    _check_texts(prepared.train, prepared.dev)
    return prepared


def require_folder(model: str | os.PathLike[str]) -> None:
    """Raise `CheckpointError` if a model is no folder."""
    if not Path(model).is_dir():
        raise CheckpointError(f"{model}: no folder of a model")


def _check_texts(train: Examples, dev: Examples) -> None:
    """Raise `UsageError` if the texts cannot be learnt from, or not scored on."""
    if bool(train.pairs) != bool(dev.pairs):
        raise UsageError(f"{train.source} and {dev.source}: one has pairs of texts (a column text2), the other has not")
    label_names(train, dev)
