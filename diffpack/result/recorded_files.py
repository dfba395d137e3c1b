"""The SHA-256 of the tuned files, where a diff records them, compared without writing the files."""

from __future__ import annotations

import hashlib

import numpy as np

from diffpack.checkpoints.safetensors_header import parse_header
from diffpack.diff.layout import Headers, Index
from diffpack.errors import ResultMismatchError
from diffpack.result.result import Result


def check_recorded_files(result: Result, headers: Headers, index: Index) -> None:
    """Check that the files of the recorded layout have the SHA-256 recorded (rule L7); without any, nothing is done.

    Makes every result tensor anew, in the order of the files. Raises `ResultMismatchError`.
    """
    layout = result.diff.manifest.layout
    if layout is None or layout.sha256 is None:
        return
    named = [(name, _file_digest(result, name, raw)) for name, raw in headers]
    if index is not None:
        named.append((index[0], hashlib.sha256(index[1]).hexdigest()))
    for (name, found), expected in zip(named, layout.sha256, strict=True):
        if found != expected:
            raise ResultMismatchError(
                f"{result.diff.name}: the file {name or 'of the result'} has the SHA-256 {found}, "
                f"recorded is {expected} [L7]"
            )


def _file_digest(result: Result, name: str, raw: bytes) -> str:
    """The SHA-256 of one file of the layout, as hex digits."""
    digest = hashlib.sha256(len(raw).to_bytes(8, "little") + raw)
    folder = name[: name.rfind("/") + 1]
    for tensor in parse_header(raw, name).tensors:
        for _, words in result.blocks(folder + tensor):
            digest.update(np.ascontiguousarray(words).data)
    return digest.hexdigest()
