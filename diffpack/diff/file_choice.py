"""Which side files of a tuned folder a diff keeps: all, those that describe the model, none, or some by name."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from diffpack.errors import UsageError
from diffpack.support.names import listed, printable

ALL, MODEL, NONE = "all", "model", "none"
_DESCRIBING = frozenset({"modules.json", "model_index.json", "params.json"})
"""What sentence-transformers, diffusers and Mistral's own releases call the description of a model."""


def describes_model(path: str) -> bool:
    """Tell whether a side file describes the model, not its tokenizer.

    Those with `config` in their name but the tokenizer's (config.json, generation_config.json,
    sentence_bert_config.json), and a few that are called otherwise.
    """
    name = PurePosixPath(path).name.casefold()
    return name in _DESCRIBING or ("config" in name and not name.startswith("tokenizer"))


@dataclass(frozen=True)
class FileChoice:
    """What was asked for: `all`, `model`, `none`, or names and patterns (`tokenizer*`) of files; several add up."""

    words: tuple[str, ...] = (ALL,)

    @classmethod
    def of(cls, files: bool | str | Iterable[str]) -> FileChoice:
        """Read what a user says: a word, several, or true and false for all and none. Raises `UsageError`."""
        if isinstance(files, bool):
            return cls((ALL if files else NONE,))
        words = (files,) if isinstance(files, str) else tuple(files)
        if not words or not all(words):
            raise UsageError(f"the side files to keep are {ALL}, {MODEL}, {NONE}, or names")
        if NONE in words and len(words) > 1:
            raise UsageError(f"no side files ({NONE}) and others cannot be kept together")
        return cls(words)

    @property
    def nothing(self) -> bool:
        """Whether no file is kept."""
        return self.words == (NONE,)

    def keeps(self, path: str) -> bool:
        """Tell whether a side file of this path in the folder is kept."""
        return any(_fits(word, path) for word in self.words)

    def check(self, paths: Collection[str], folder: str) -> None:
        """Raise `UsageError` if a name fits none of the side files of the folder."""
        for word in self.words:
            if word not in (ALL, MODEL, NONE) and not any(_fits(word, path) for path in paths):
                there = listed([printable(path) for path in sorted(paths)]) if paths else "none"
                raise UsageError(f"{folder}: no side file {printable(word)}; there are {there}")


def _fits(word: str, path: str) -> bool:
    if word in (ALL, NONE):
        return word == ALL
    if word == MODEL:
        return describes_model(path)
    return fnmatchcase(path, word) or fnmatchcase(PurePosixPath(path).name, word)
