"""Options and argument types that several verbs share."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import click

if TYPE_CHECKING:
    from diffpack import Checkpoint

F = TypeVar("F", bound=Callable[..., Any])

STDIO = "-"
MOST_STDIN_BYTES = 1 << 32  # it is kept in memory: its trailer, by which a diff is read, comes last
_FIRST_BYTES, _PIECE_BYTES = 128, 1 << 20
_NO_STDIN = "a checkpoint cannot be read from standard input, it is read in any order: name a file or folder"


@dataclass
class Session:
    """What holds for a whole run: the global options, wherever on the line they stood."""

    json: bool = False
    quiet: bool = False
    verbose: bool = False
    no_progress: bool = False
    no_mmap: bool = False
    threads: int | None = None
    output: str | None = None
    """What is being written, for errors of the system that do not name it."""
    written: str | None = None
    """What was written whole before something else went wrong."""


def _remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value and parameter.name:
        setattr(context.ensure_object(Session), parameter.name, value)


def _version(context: click.Context, _: click.Parameter, value: bool) -> None:
    if not value or context.resilient_parsing:
        return
    from diffpack import __version__
    from diffpack.format import frame

    click.echo(f"diffpack {__version__} (format {frame.MAJOR}.{frame.MINOR})")
    context.exit()


_GLOBAL: list[tuple[tuple[str, ...], dict[str, Any]]] = [
    (("--json",), {"is_flag": True, "help": "Print one JSON object instead of text."}),
    (("-q", "--quiet"), {"is_flag": True, "help": "Print errors and what was asked for, nothing else."}),
    (("-v", "--verbose"), {"is_flag": True, "help": "Also tell notes about the inputs, and timings."}),
    (("--no-progress",), {"is_flag": True, "help": "Show no progress bar (there is none in a pipe)."}),
    (("--no-mmap",), {"is_flag": True, "help": "Read checkpoints without memory maps, where a file system has none."}),
    (("--threads",), {"type": click.IntRange(min=1), "metavar": "N", "help": "Threads to use  [default: one a core]"}),
]


def global_options(function: F) -> F:
    """Add the options every verb takes; their values go to the run's `Session`."""
    version = click.option(
        "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version,
        help="Print the versions of the library and of the format.",
    )  # fmt: skip
    function = version(function)
    for names, settings in reversed(_GLOBAL):
        function = click.option(*names, expose_value=False, callback=_remember, **settings)(function)
    return function


class CheckpointPath(click.Path):
    """A checkpoint's path: neither empty nor `-`."""

    name = "checkpoint"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse what cannot be a checkpoint."""
        if value == STDIO:
            self.fail(_NO_STDIN, param, ctx)
        return _not_empty(self, value, param, ctx)


class DiffPath(click.Path):
    """A diff's path, or `-` for standard input."""

    name = "diff"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse the empty name, which an unset variable of a shell gives."""
        return _not_empty(self, value, param, ctx)


class OutputPath(click.Path):
    """A path to write; what `-` means is the verb's business."""

    name = "output"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse the empty name."""
        return _not_empty(self, value, param, ctx)


def _not_empty(kind: click.Path, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
    if not value:
        kind.fail("the name is empty", param, ctx)
    return value


class LibraryChoice(click.Choice[str]):
    """One of the words the library knows: those the help names, and any that were added to it since.

    The library is loaded only for a word the help does not name.
    """

    def __init__(self, named: tuple[str, ...], load: Callable[[], Iterable[str]]) -> None:
        super().__init__(named)
        self._load = load

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Read it."""
        if value not in self.choices:
            self.choices = tuple(self._load())
        return super().convert(value, param, ctx)


class Text(click.types.StringParamType):
    """Text that the diff keeps, so it must be Unicode."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuse bytes of the command line that are not UTF-8."""
        text = str(super().convert(value, param, ctx))
        try:
            text.encode()
        except UnicodeEncodeError:
            self.fail("not UTF-8", param, ctx)
        return text


class Assignment(Text):
    """KEY=VALUE, as a pair; `empty_key` says whether "=VALUE" is one."""

    name = "assignment"

    def __init__(self, empty_key: bool = False) -> None:
        self._empty_key = empty_key

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Split at the first equals sign."""
        if isinstance(value, tuple):
            return value
        key, equals, rest = super().convert(value, param, ctx).partition("=")
        if not equals or not (key or self._empty_key):
            self.fail(f"{value!r} is not of the form {param.metavar if param else 'KEY=VALUE'}", param, ctx)
        return key, rest


class RenameRule(Assignment):
    """OLD=NEW, prefixes, as a pair of texts; or re:PATTERN=NEW as a compiled pattern and a text."""

    name = "rename rule"

    def __init__(self) -> None:
        super().__init__(empty_key=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Compile a pattern; it ends at the last equals sign, since there may be some in it."""
        if isinstance(value, tuple) or not str(value).startswith(_PATTERN):
            return super().convert(value, param, ctx)
        pattern, equals, new = Text.convert(self, value, param, ctx).removeprefix(_PATTERN).rpartition("=")
        if not equals or not pattern:
            self.fail(f"{value!r} is not of the form {_PATTERN}PATTERN=NEW", param, ctx)
        try:
            compiled = re.compile(pattern)
            compiled.sub(new, "")
        except (re.error, IndexError) as error:
            self.fail(f"{value!r} is no pattern and its replacement: {error}", param, ctx)
        return compiled, new


_PATTERN = "re:"


def rename_option(text: str, *, required: bool = False) -> Callable[[F], F]:
    """Add --rename; `text` says what starts with OLD."""
    return click.option(
        "--rename", multiple=True, type=RenameRule(), metavar="OLD=NEW", required=required,
        help=f"{text} re:PATTERN=NEW replaces a regular expression. Repeatable; the first that fits is taken.",
    )  # fmt: skip


base_option = click.option(
    "--base", required=True, type=CheckpointPath(), metavar="BASE", help="The base: a weights file or a model folder."
)
optional_base = click.option("--base", type=CheckpointPath(), metavar="BASE", help="Also check against this base.")
clip_option = click.option(
    "--clip",
    is_flag=True,
    help="End sums the result's dtype cannot hold at its largest finite number; else refuse them.",
)
force_option = click.option("--force", is_flag=True, help="Replace an output that exists.")
diff_argument = click.argument("diff", type=DiffPath(), metavar="DIFF")


def open_checkpoint(session: Session, path: str) -> Checkpoint:
    """Open a checkpoint as the global options say; raises as the library's function of the name does."""
    import diffpack

    return diffpack.open_checkpoint(path, mmap=not session.no_mmap)


def opened(session: Session, path: str | None) -> Checkpoint | None:
    """Open a checkpoint, if one is named."""
    return None if path is None else open_checkpoint(session, path)


def read_diff(path: str) -> Any:
    """What the library takes as a diff: the path, or the diff opened from standard input.

    Raises `click.UsageError` if that is a terminal, `CorruptFileError` if no diff arrives, `DiffpackError` for more
    than is kept in memory.
    """
    if path != STDIO:
        return path
    if sys.stdin is None or sys.stdin.isatty():
        raise click.UsageError("the diff is to come from standard input, which is a terminal or closed")
    from diffpack import Diff
    from diffpack.format.source import MemorySource

    return Diff(MemorySource(_read_stdin(sys.stdin.buffer), "standard input"))


def _read_stdin(stream: BinaryIO) -> bytes:
    """What arrives on standard input; of what is no diff only its beginning, which tells that."""
    from diffpack import DiffpackError
    from diffpack.format.frame import MAGIC

    start = stream.read(_FIRST_BYTES)
    if not start.startswith(MAGIC):
        return start
    read = BytesIO(start)
    read.seek(len(start))
    while piece := stream.read(_PIECE_BYTES):
        if read.tell() + len(piece) > MOST_STDIN_BYTES:
            raise DiffpackError(
                f"standard input: over {MOST_STDIN_BYTES:,} bytes, all of which would be kept in memory: save the diff "
                "in a file, and name that"
            )
        read.write(piece)
    return read.getvalue()
