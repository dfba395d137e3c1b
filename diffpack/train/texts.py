"""Labelled texts, read from tab-separated files; knows no torch, so that a mistake in them is told at once."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from diffpack.errors import UsageError


@dataclass(frozen=True)
class Examples:
    """One file of labelled texts. `pairs` is empty or as long as `texts`; `digest` is BLAKE3 of the file's bytes."""

    source: str
    texts: tuple[str, ...]
    pairs: tuple[str, ...]
    labels: tuple[str, ...]
    digest: str

    def __len__(self) -> int:
        return len(self.texts)


def read_tsv(path: str | os.PathLike[str]) -> Examples:
    """Read a tab-separated file whose first line names the columns `text`, perhaps `text2`, and `label`.

    Raises `UsageError` if a column is missing, a line has another number of columns or an empty one of these, or there
    is no text.
    """
    source = str(path)
    try:
        raw = Path(path).read_bytes()
        lines = raw.decode("utf-8-sig").removesuffix("\n").split("\n")  # a text may hold any other kind of line end
    except UnicodeDecodeError as error:
        raise UsageError(f"{source}: not UTF-8 text (byte {error.start})") from None
    head, *rows = (line.removesuffix("\r").split("\t") for line in lines)
    if "text" not in head or "label" not in head:
        raise UsageError(f"{source}: its first line must name the columns text, label (and text2 for pairs)")
    if len(set(head)) < len(head):
        raise UsageError(f"{source}: its first line names a column twice")
    text, label = head.index("text"), head.index("label")
    second = head.index("text2") if "text2" in head else None
    texts, pairs, labels = [], [], []
    for number, row in enumerate(rows, 2):
        if len(row) != len(head):
            raise UsageError(f"{source}, line {number}: {len(row)} columns where the first line has {len(head)}")
        for at in (text, second, label):
            if at is not None and not row[at].strip():
                raise UsageError(f"{source}, line {number}: its {head[at]} is empty; fill it in, or leave the line out")
        texts.append(row[text])
        labels.append(row[label])
        if second is not None:
            pairs.append(row[second])
    if not texts:
        raise UsageError(f"{source}: no texts below its first line")
    return Examples(source, tuple(texts), tuple(pairs), tuple(labels), blake3(raw).hexdigest())
