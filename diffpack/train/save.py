"""From a trained model to a .dpk file: body as a diff, head and added modules as new tensors, config beside them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path

from diffpack.checkpoints import Checkpoint, open_checkpoint
from diffpack.checkpoints.side_files import side_files
from diffpack.diff.diff import Diff
from diffpack.extraction.extract import extract
from diffpack.train.model import config_of, plain_name
from diffpack.train.task import Task

CONFIG = "config.json"


def make_diff(task: Task, metadata: Mapping[str, str], output: Path | None = None, *, force: bool = False) -> Diff:
    """Store the task's model as its difference from the base folder, in the value coding of its options.

    The result is what transformers would save: the classifier's tensors with its names, its config.json, and the
    base folder's other small files. Without `output` the diff lives in a temporary file.
    """
    with tempfile.TemporaryDirectory() as name:
        tuned = _checkpoint(task, Path(name))
        return _extract(task, tuned, metadata, output, force=force)


def bytes_without_head(task: Task, metadata: Mapping[str, str]) -> int:
    """The size the file would have without the head's tensors (they cost the same with every method)."""
    with tempfile.TemporaryDirectory() as name:
        tuned = _checkpoint(task, Path(name), {plain_name(head) for head in task.head})
        with _extract(task, tuned, metadata) as diff:
            return diff.nbytes


def _extract(
    task: Task, tuned: Checkpoint, metadata: Mapping[str, str], output: Path | None = None, *, force: bool = False
) -> Diff:
    """Make the diff; positions that the base or the seed tells are stored as the rule.

    What the model lacks of the base's folder it never had: the loader has seen to it that its body is whole.
    """
    rule, counts = task.told or (None, None)
    return extract(
        task.folder, tuned, output, rule=rule, counts=counts, values=task.options.coding, layout=False,
        allow_removed=True, metadata=metadata, force=force,
    )  # fmt: skip


def _checkpoint(task: Task, folder: Path, without: Collection[str] = ()) -> Checkpoint:
    """Make the tuned checkpoint; the new tensors of added modules as F16, where values may be lossy.

    The format stores new tensors exactly, so a float32 adapter would cost twice what a diff's values do. The head
    stays whole.
    """
    tensors = {name: value for name, value in task.result().items() if name not in without}
    if task.options.coding != "exact" and task.builder:
        kept = {plain_name(head) for head in task.head} | set(open_checkpoint(task.folder).tensors)
        prefix = f"{getattr(task.model, 'base_model_prefix', '')}."
        added = [name for name in tensors if name not in kept and name.removeprefix(prefix) not in kept]
        tensors |= {name: tensors[name].half() for name in added}
    tuned = open_checkpoint(tensors)
    tuned.folder = _folder(task, folder)
    return tuned


def _folder(task: Task, folder: Path) -> Path:
    """Lay out the side files: the base's, with the classifier's configuration."""
    for name, path in side_files(Path(task.folder)).files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / name)
    (folder / CONFIG).write_text(config_of(task.model), encoding="utf-8")
    return folder
