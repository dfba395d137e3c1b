"""train: a model folder and labelled texts -> a .dpk file, with the score that file reaches."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from diffpack.checkpoints import open_checkpoint
from diffpack.checkpoints.fingerprint import fingerprint
from diffpack.diff.diff import Diff, open_diff
from diffpack.diff.stats import DiffStats, diff_stats
from diffpack.errors import DivergedError
from diffpack.support.parallel import Progress
from diffpack.train.divergence import require_sense
from diffpack.train.evaluate import ask, load_task, require_metrics, scores
from diffpack.train.loop.cost import Cost
from diffpack.train.loop.fit import Resume, fit, forget
from diffpack.train.loop.stage import Stage
from diffpack.train.methods import BATCH_SIZES, stages_of
from diffpack.train.options import TrainOptions
from diffpack.train.preparation import prepare
from diffpack.train.save import bytes_without_head, make_diff
from diffpack.train.task import Task, make_task
from diffpack.train.texts import Examples


@dataclass(frozen=True)
class Trained:
    """What training made. `scores` are the stored file's on the dev texts.

    `cost` is of the training alone, also of what came before an interruption; `trained` the numbers trained in the
    last stage; `bytes_without_head` what the file would take without the head's tensors; `pool` the entries a density
    is a fraction of.
    """

    output: Path
    scores: dict[str, float]
    cost: Cost
    trained: int
    pool: int
    bytes_without_head: int
    stored: DiffStats
    settings: dict[str, Any]


def train(
    model: str | os.PathLike[str],
    train: str | os.PathLike[str],
    dev: str | os.PathLike[str],
    output: str | os.PathLike[str],
    options: TrainOptions | None = None,
    *,
    resume: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> Trained:
    """Tune the model of a folder on `train` and store the task as a diff.

    A checkpoint is kept beside `output` (its name with `.checkpoint`) until the end: after a minute, and after each
    stage. With `resume` a run goes on from there, if there is one; without, it is refused or, with `force`, begun anew.
    `force` also lets an output that exists be replaced: with both, a run goes on and then replaces it.
    Training that diverges (`diffpack.train.divergence`) writes nothing and leaves no checkpoint: `DivergedError`.
    Raises `UsageError`, `CheckpointError`, `CorruptFileError` (a checkpoint), `MissingDependencyError`, and `OSError`
    before anything is trained if `output` cannot be written.
    """
    chosen, path = options or TrainOptions(), Path(output)
    require_metrics()
    prepared = prepare(model, train, dev, path, resume=resume, force=force)
    parts = prepared.train, prepared.dev
    task = make_task(model, *parts, chosen, chosen.batch_size or BATCH_SIZES.get(chosen.method))
    before = fingerprint(open_checkpoint(model))
    pool = sum(value.numel() for value in task.body.values())
    stages = stages_of(task)
    notes = describe(task, stages, parts)
    kept = Resume(prepared.checkpoint, _identity(before, notes), resume)
    try:
        fitted = fit(task, stages, kept, progress)
        with make_diff(task, notes) as first:
            dev_scores = evaluate(task, first)
    except DivergedError:  # it would again, from the same checkpoint
        forget(kept)
        raise
    notes["metrics"] = _json({"dev": dev_scores})
    make_diff(task, notes, path, force=force).close()
    forget(kept)
    with open_diff(path) as diff:
        stored = diff_stats(diff)
    settings = json.loads(notes["train"])
    return Trained(
        path, dev_scores, fitted.cost, fitted.trained, pool, bytes_without_head(task, notes), stored, settings
    )


def evaluate(task: Task, diff: Diff) -> dict[str, float]:
    """Score what a diff gives on the base, on the task's dev texts. Raises `DivergedError` if it makes no sense."""
    read = load_task(task.folder, diff)
    answers = ask(read.model, task.dev, read.tokenizer)
    require_sense(task, read.model, answers)
    return scores(task.dev.labels, answers.likeliest)


def describe(task: Task, stages: Sequence[Stage], parts: tuple[Examples, Examples]) -> dict[str, str]:
    """The metadata of the file: what was trained, on what, and how."""
    import torch
    import transformers

    used = {
        **asdict(task.options),
        "values": task.options.coding,
        "batch_size": task.batch_size,
        "stages": [{"name": stage.name, "epochs": stage.epochs, "lr": stage.lr} for stage in stages],
    }
    for name in ("epochs", "lr", "fixed_lr", "find_lr", "head_epochs"):  # said stage by stage
        del used[name]
    data = {
        name: {"rows": len(part), "pairs": bool(part.pairs), "blake3": part.digest}
        for name, part in zip(("train", "dev"), parts, strict=True)
    }
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    notes = {"train": _json(used), "data": _json(data), "versions": _json(versions)}
    return notes | ({"builder": _json(task.builder)} if task.builder else {})


def _identity(base: str, notes: dict[str, str]) -> str:
    """Tell runs apart: the base's content, the data and every option."""
    return blake3(_json({"base": base, **notes}).encode()).hexdigest()


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
