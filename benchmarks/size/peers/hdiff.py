"""HDiffPatch of the files, with zstd-19. Its own check of the patch is left out: every result is compared here."""

from __future__ import annotations

from pathlib import Path

import hdiffpatch

CODER = hdiffpatch.ZStdConfig(level=19, window=27)


def encode(base: Path, tuned: Path, out: Path) -> None:
    patch = hdiffpatch.diff(base.read_bytes(), tuned.read_bytes(), CODER, validate=False, big_cache_match=True)
    out.write_bytes(patch)


def decode(base: Path, out: Path, result: Path) -> None:
    result.write_bytes(hdiffpatch.apply(base.read_bytes(), out.read_bytes()))
