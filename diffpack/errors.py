"""Every error diffpack raises on purpose.

::

    DiffpackError                       exit 1
    |-- UsageError (ValueError)         exit 2    options that do not fit together, an output that is an input
    |   `-- DivergedError               exit 2    training that ended in no model; nothing is written
    |-- CheckpointError                 exit 1    a checkpoint that cannot be read or written
    |   |-- UnsupportedCheckpointError  exit 1    its layout or dtype is not one of ours
    |   |-- MissingTensorError (KeyError) exit 1
    |   `-- OutputError (OSError)       exit 1    an output, also a diff, that the system does not take: a full disk
    |-- WrongBaseError                  exit 10   the base is not the one the diff was made from
    |-- CorruptFileError                exit 11   a diff that breaks a rule of the format
    |   `-- TruncatedFileError          exit 11
    |-- UnsupportedFormatError          exit 12   a version, feature or codec this reader does not know
    |-- SignatureError                  exit 13   a diff without the signature that is asked for
    |-- BaseNeededError                 exit 1    what was asked for is coded against the base
    |-- ResultMismatchError             exit 1    apply arrived at other bits than the diff records
    |-- SomeFailedError                 exit 1    of several things some could not be done; the others are
    |-- OutOfMemoryError (MemoryError) exit 1     there is not enough memory
    `-- MissingDependencyError (ImportError) exit 1   an extra is not installed

Each message says what is wrong, where (file, tensor, chunk) and, when it helps, what to do next. `hint` says more for
the command line, where the cause is not the usual one of the error's type.
"""

from __future__ import annotations

from collections.abc import Mapping

AGAIN = "download or copy it again"
"""What to do about a file that did not arrive whole, or at all."""


_MOST_LETTERS = 2000
"""Of a message: names from files may be megabytes long, and a message is read by people and kept in logs."""


def _cut(message: str) -> str:
    """A message that is too long without its middle; its end names the rule that was broken."""
    if len(message) <= _MOST_LETTERS:
        return message
    half = _MOST_LETTERS // 2
    return f"{message[:half]} ... ({len(message) - 2 * half:,} letters left out) ... {message[-half:]}"


class DiffpackError(Exception):
    """Base of all errors of diffpack; `exit_code` is what the command line exits with.

    `hint` is what to do next, "" if the message says all of it, None if it goes by the type.
    """

    exit_code = 1

    def __init__(self, *args: object, hint: str | None = None) -> None:
        super().__init__(*args)
        self.hint = hint

    def __str__(self) -> str:  # KeyError would show the repr of the message
        return _cut(str(self.args[0])) if self.args else ""


class UsageError(DiffpackError, ValueError):
    """Arguments that do not fit together."""

    exit_code = 2


class DivergedError(UsageError):
    """Training ended in no model; nothing is written."""

    def __init__(self, what: str) -> None:
        super().__init__(f"training diverged: {what}; nothing is written, try a lower learning rate")


class CheckpointError(DiffpackError):
    """A checkpoint cannot be read or written."""


class UnsupportedCheckpointError(CheckpointError):
    """The checkpoint's layout, or the dtype of one of its tensors, is not supported."""


class MissingTensorError(CheckpointError, KeyError):
    """A tensor that was asked for does not exist."""


class OutputError(CheckpointError, OSError):
    """An output, be it a checkpoint or a diff, that the system does not take; `errno` and `strerror` are the system's.

    Nothing of the output is kept, unless the message says that it is.
    """

    def __init__(self, message: str, cause: OSError, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.errno, self.strerror = cause.errno, cause.strerror


class WrongBaseError(DiffpackError):
    """The base is not the checkpoint the diff was made from.

    `tensors` names those known to differ.
    """

    exit_code = 10

    def __init__(self, message: str, tensors: tuple[str, ...] = (), *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.tensors = tensors


class CorruptFileError(DiffpackError):
    """A diff breaks a rule of the format; `rule` is the rule's id in the specification, "" for another tool's file."""

    exit_code = 11

    def __init__(self, message: str, rule: str = "", *, hint: str | None = None) -> None:
        super().__init__(f"{message} [{rule}]" if rule else message, hint=hint)
        self.rule = rule


class TruncatedFileError(CorruptFileError):
    """A diff ends too early, or is not a diff at all."""


class UnsupportedFormatError(DiffpackError):
    """A diff needs a format version, feature or codec that this reader does not know."""

    exit_code = 12

    def __init__(self, message: str, rule: str = "") -> None:
        super().__init__(f"{message} [{rule}]" if rule else message)
        self.rule = rule


class SignatureError(DiffpackError):
    """A signature is missing, damaged, another diff's, or by nobody whose signature counts."""

    exit_code = 13


class BaseNeededError(DiffpackError):
    """The positions and steps of a tensor are coded against the base, which was not given."""


class ResultMismatchError(DiffpackError):
    """Apply arrived at other bits than the diff records."""


class OutOfMemoryError(DiffpackError, MemoryError):
    """There is not enough memory for what was asked for."""


class SomeFailedError(DiffpackError):
    """Some of several things could not be done; the others are.

    `done` leads from their names to what came of them, `failed` to what they failed with, both in the order given. The
    exit code is that of the first that failed.
    """

    def __init__(self, done: Mapping[str, object], failed: Mapping[str, Exception]) -> None:
        self.done, self.failed = dict(done), dict(failed)
        self.exit_code = getattr(next(iter(self.failed.values())), "exit_code", 1)
        told = "; ".join(f"{name}: {error}" for name, error in self.failed.items())
        super().__init__(f"{len(self.failed)} of {len(self.done) + len(self.failed)} failed: {told}")


class MissingDependencyError(DiffpackError, ImportError):
    """A feature needs a package that is not installed."""

    def __init__(self, package: str, extra: str, what: str) -> None:
        super().__init__(f"{what} needs {package}: pip install 'diffpack[{extra}]'")
