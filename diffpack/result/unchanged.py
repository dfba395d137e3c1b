"""A checkpoint that is the result already: a diff that changes nothing gives it as it is, by the ordinary way."""

from __future__ import annotations

import tempfile

from diffpack.checkpoints import Checkpoint
from diffpack.diff.diff import Diff
from diffpack.diff.file_choice import FileChoice
from diffpack.diff.layout import keep_layout
from diffpack.diff.publish import reopened
from diffpack.diff.sidefiles import keep_side_files
from diffpack.diff.structure import keep_structure
from diffpack.diff.summary import base_summary, new_manifest, result_summary
from diffpack.format.manifest import to_json
from diffpack.format.writer import ContainerWriter

_PROFILE = "portable"  # of what is stored there is nothing: all of it is the base's


def unchanged(checkpoint: Checkpoint, fingerprint: str, *, code: bool = False) -> Diff:
    """The diff from a checkpoint to itself: its tensors, files' layout, structure and side files as they are.

    `fingerprint` is the checkpoint's; `code` says whether its folder's code comes along.
    """
    left_out = list(checkpoint.left_out)
    with tempfile.TemporaryFile() as file:
        writer = ContainerWriter(file)
        tensors = checkpoint.tensors
        manifest = new_manifest(
            base_summary(fingerprint, tensors),
            result_summary(fingerprint, tensors),
            (),
            exact=True,
            metadata={},
            recipe={},
            layout=keep_layout(writer, checkpoint, checkpoint, _PROFILE),
            files=keep_side_files(writer, checkpoint, checkpoint, _PROFILE, FileChoice(), code=code),
            structure=keep_structure(checkpoint, checkpoint),
        )
        writer.finish(to_json(manifest))
        checkpoint.left_out[:] = left_out  # what a diff does not keep is not what apply is asked about
        return reopened(file, "the base as it is")
