"""`diffpack fingerprint`: the content hash of checkpoints, whatever their file layout."""

from __future__ import annotations

import click

from .options import CheckpointPath, Session, global_options, open_checkpoint
from .output import Report, emit, emit_json, notes, safe, tell_left_out
from .progress import watched

KEYS = {
    "checkpoints[].path": "the checkpoint",
    "checkpoints[].fingerprint": "its content hash, 64 hex digits",
    "checkpoints[].layout": "its file layout",
    "checkpoints[].tensors": "how many tensors it has",
    "checkpoints[].bytes": "bytes of their data",
    "checkpoints[].notes": "remarks about it",
    "checkpoints[].left_out": "what of its files is no tensor and not counted: training state",
}
"""What `--json` prints; `a[].b` is member b of every item of the list a."""


@click.command()
@click.argument("checkpoints", nargs=-1, required=True, type=CheckpointPath(), metavar="CHECKPOINT...")
@global_options
@click.pass_obj
def command(session: Session, checkpoints: tuple[str, ...]) -> None:
    """Print the content hash of each CHECKPOINT; with -q without its name.

    It depends on names, dtypes, shapes and bits alone: one file, shards, .bin and HDF5 of the same tensors have
    the same.
    """
    import diffpack

    reports: list[Report] = []
    for path in checkpoints:
        with open_checkpoint(session, path) as checkpoint:
            with watched(session, "hashing"):
                digest = diffpack.fingerprint(checkpoint, threads=session.threads)
            notes(session, checkpoint.notes)
            tell_left_out(session, checkpoint.left_out, "not counted")
            reports.append(
                {
                    "path": path,
                    "fingerprint": digest,
                    "layout": checkpoint.layout,
                    "tensors": len(checkpoint.tensors),
                    "bytes": checkpoint.nbytes,
                    "notes": list(checkpoint.notes),
                    "left_out": list(checkpoint.left_out),
                }
            )
        if not session.json:
            emit(digest if session.quiet else f"{digest}  {safe(path)}")
    if session.json:
        emit_json({"checkpoints": reports})
