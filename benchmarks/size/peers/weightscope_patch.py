"""weightscope's .wsp patch at threshold 0 (its default, 1e-6, drops small changes)."""

from __future__ import annotations

from pathlib import Path

from weightscope import apply_patch, export_patch

from benchmarks.size.peers.model_folder import folder


def encode(base: Path, tuned: Path, out: Path) -> None:
    with folder(base) as before, folder(tuned) as after:
        export_patch(str(before), str(after), out, threshold=0.0)


def decode(base: Path, out: Path, result: Path) -> None:
    with folder(base) as before:
        apply_patch(out, str(before), result)
