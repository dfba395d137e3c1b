"""What the user of extract says, by the names of its arguments, made into checked options."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypedDict, Unpack

from diffpack.checkpoints import CheckpointLike
from diffpack.diff.file_choice import FileChoice
from diffpack.extraction.options import Options, Selection
from diffpack.extraction.target import Target
from diffpack.tensors.rename_patterns import Renaming, checked


class Choices(TypedDict, total=False):
    """How a diff is to be made: the arguments of `extract` of these names, which says what they mean."""

    density: float | None
    top_k: int | None
    threshold: float | None
    rule: str | None
    counts: Mapping[str, int] | None
    values: str
    budget: int | float | str | None
    target_error: float | None
    importance: CheckpointLike | None
    rank: int | None
    positions: str
    profile: str
    rename: Renaming | None
    allow_removed: bool
    layout: bool
    files: bool | str | Iterable[str]
    code: bool
    sha256: bool
    base_name: str | None
    base_revision: str | None
    threads: int | None


def options_of(**choices: Unpack[Choices]) -> Options:
    """The options, checked. Raises `UsageError` where they do not fit.

    Of `importance` only that it is given counts here: its weights are found for each tuned checkpoint.
    """
    rename = choices.get("rename")
    return Options(
        selection=Selection(
            choices.get("density"),
            choices.get("top_k"),
            choices.get("threshold"),
            choices.get("rule"),
            choices.get("counts"),
        ),
        value_choice=choices.get("values", _PLAIN.value_choice),
        profile=choices.get("profile", _PLAIN.profile),
        position_choice=choices.get("positions", _PLAIN.position_choice),
        target=Target.of(choices.get("budget"), choices.get("target_error")),
        importance=None if choices.get("importance") is None else {},
        rank=choices.get("rank"),
        rename=None if rename is None else checked(rename),
        allow_removed=choices.get("allow_removed", False),
        keep_layout=choices.get("layout", True),
        keep_files=FileChoice.of(choices.get("files", "all")),
        keep_code=choices.get("code", False),
        sha256=choices.get("sha256", False),
        base_name=choices.get("base_name"),
        base_revision=choices.get("base_revision"),
        threads=choices.get("threads"),
    )


_PLAIN = Options()
