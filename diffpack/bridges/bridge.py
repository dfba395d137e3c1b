"""What every bridge offers: the jobs it is given, and what it can do."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from diffpack.checkpoints import Checkpoint
from diffpack.checkpoints.overwriting import model_folder, refuse_file_name
from diffpack.diff.diff import Diff
from diffpack.errors import BaseNeededError, UsageError
from diffpack.support.inputs import Inputs
from diffpack.support.parallel import Progress
from diffpack.tensors.rename import Rename, own_names


@dataclass(frozen=True)
class Import:
    """Read `source`, in another tool's format, as a diff of `base`. `notes` grow: remarks for people.

    `clip` ends sums at the largest finite number of their dtype; without it those beyond are refused.
    """

    format: str
    source: Path
    base: Checkpoint | None
    options: Mapping[str, str]
    rename: Rename
    profile: str
    metadata: Mapping[str, str]
    threads: int | None = None
    progress: Progress | None = None
    clip: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def needed_base(self) -> Checkpoint:
        """The base. Raises `BaseNeededError` if it was not given."""
        if self.base is None:
            raise BaseNeededError(f"{self.source}: {self.format} does not say what it changes: give the base")
        return self.base

    def view(self) -> dict[str, str]:
        """Map the names the other tool uses to the base's own."""
        return own_names(self.needed_base.tensors, self.rename)


@dataclass(frozen=True)
class Export:
    """Write diffs to `output`, in another tool's format. `notes` grow: what the format does not carry.

    `inputs` are the files all is read from, `replace` says whether an output that exists may be replaced. `named` is
    the output as it was named, which may say by a slash at its end that it is a folder.
    """

    format: str
    diffs: Sequence[Diff]
    names: Sequence[str]
    output: Path
    base: Checkpoint | None
    options: Mapping[str, str]
    inputs: Inputs
    threads: int | None = None
    replace: bool = False
    named: str = ""
    notes: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def folder(self) -> Iterator[Path]:
        """A folder that becomes the output if the body succeeds and no input changed meanwhile.

        Raises `UsageError` if the output is called as a file.
        """
        refuse_file_name(self.named or self.output)
        with model_folder(self.output, replace=self.replace) as folder, self.inputs.unchanged():
            yield folder

    @property
    def diff(self) -> Diff:
        """The one diff. Raises `UsageError` if there are several."""
        if len(self.diffs) != 1:
            raise UsageError(f"{self.format} holds one diff, not {len(self.diffs)}")
        return self.diffs[0]

    @property
    def needed_base(self) -> Checkpoint:
        """The base. Raises `BaseNeededError` if it was not given."""
        if self.base is None:
            raise BaseNeededError(f"{self.format} holds the values that are reached, not steps: give the base")
        return self.base


@dataclass(frozen=True)
class Bridge:
    """One format.

    `detect` tells whether a path surely is of this format, without reading more than a header. `read` writes a diff to
    an open file. `write` writes the output, whole or not at all, and tells whether it gives the diff's result back bit
    for bit. Either may be missing. `read_options` and `write_options` are what each direction understands: name -> what
    it means.
    """

    detect: Callable[[Path], bool]
    read: Callable[[Import, BinaryIO], None] | None = None
    write: Callable[[Export], bool] | None = None
    read_options: Mapping[str, str] = field(default_factory=dict)
    write_options: Mapping[str, str] = field(default_factory=dict)
