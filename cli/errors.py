"""From exceptions to one line on stderr, a hint what to do next, and the exit code.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | it could not be done: a checkpoint, the disk, memory, other bits than recorded |
| 2 | wrong arguments, an output that exists or is an input |
| 10 | the base is not the one the diff was made from |
| 11 | the diff is damaged or cut off |
| 12 | the diff needs a newer diffpack |
| 13 | the diff lacks the signature that was asked for |
| 129, 130, 143 | stopped by SIGHUP, by Ctrl-C, by SIGTERM (128 + the signal's number) |
| 141 | the reader of standard output went away |
"""

from __future__ import annotations

import errno
import signal
import traceback

import click

from .interrupts import BROKEN_PIPE, Interrupted
from .options import Session
from .output import one_line, warn

HINTS = {
    "WrongBaseError": "`diffpack inspect DIFF` shows which base it needs, `diffpack fingerprint BASE` what yours is",
    "TruncatedFileError": "if it is a diff, it did not arrive whole: copy it again",
    "UnsupportedFormatError": "pip install --upgrade diffpack",
    "ResultMismatchError": "no output was written; run it again: if it fails again, please report it with both files",
    "SignatureError": "do not use the diff unless you know who made it; whose signature counts is for you to say",
    "BaseNeededError": "name the base with --base BASE, where the verb takes it",
    "MemoryError": "`--threads 1` needs the least memory",
}
"""What to do next, by the name of the exception's type or of the nearest base that stands here; an error of another
cause than the usual one carries its own hint."""

_DAMAGED = "the file changed since it was written: copy it again, then `diffpack verify DIFF`"
_MADE_SO = "its digests fit, so it was written like this: have it made anew, and do not trust where it came from"
_DIGEST_RULES = frozenset({"F1", "F2", "F3", "F4", "F5", "F6", "C2"})
"""Rules of the format that a diff breaks whose bytes changed; what breaks others has digests that fit."""

EXTRAS = {
    "torch": "torch", "h5py": "hdf5", "scipy": "scipy", "xxhash": "sglang", "transformers": "train",
    "accelerate": "train", "peft": "train", "sklearn": "train", "safetensors": "train", "cryptography": "sign",
    "bcrypt": "sign",
}  # fmt: skip
"""The extra that brings a package, for imports whose error is not the library's own, which names it better."""

_OF_THE_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS})
_GENERAL = 1


def report(error: BaseException, session: Session, about: str = "") -> int:
    """Tell an error on stderr, after the name of what of several it is about; give the exit code."""
    message, hint, code = _explain(error, session)
    if about:
        message = f"{about}: {message}"
    if message:
        warn(f"diffpack: error: {one_line(message)}")
    if hint and not session.quiet:
        warn(f"hint: {hint}")
    if session.verbose:
        _tell_more(error)
    return code


def _explain(error: BaseException, session: Session) -> tuple[str, str, int]:
    """Message, hint (or "") and exit code."""
    if isinstance(error, Interrupted):
        if error.signum == BROKEN_PIPE:  # nobody is left to read it
            return "", "", error.exit_code
        kept = f" ({session.written} is written)" if session.written else ""
        return f"stopped by {signal.Signals(error.signum).name}{kept}", "", error.exit_code
    if isinstance(error, click.exceptions.Abort | KeyboardInterrupt):  # where no handler is installed
        return "stopped by SIGINT", "", 128 + signal.SIGINT
    if isinstance(error, click.ClickException):
        return " ".join(error.format_message().split()), _usage_hint(error), error.exit_code
    if isinstance(error, OSError) and not hasattr(error, "exit_code"):
        return _explain_os(error, session)
    if isinstance(error, MemoryError) and not hasattr(error, "exit_code"):
        return f"out of memory: {error}".rstrip(": "), _hint(error), _GENERAL
    code = getattr(error, "exit_code", None)
    if isinstance(code, int):  # DiffpackError, without importing the library for an error of click's
        return str(error), _hint(error), code
    package = _missing_package(error)
    if package:
        extra = f"[{EXTRAS[package]}]" if package in EXTRAS else ""
        again = "" if extra else "--force-reinstall "
        return f"the package {package} is missing, or incomplete", f"pip install {again}'diffpack{extra}'", _GENERAL
    return (
        f"a bug in diffpack: {type(error).__name__}: {error}",
        "please report it; -v shows the traceback",
        _GENERAL,
    )


def _missing_package(error: BaseException | None) -> str:
    """The package whose import failed, also where another package reports it in words of its own; "" for other errors.

    A module of diffpack itself that is missing is a bug.
    """
    package = ""
    while isinstance(error, ImportError):
        package = (error.name or "").partition(".")[0] or package
        error = error.__cause__ or error.__context__
    return "" if package.startswith("diffpack") else package


def _explain_os(error: OSError, session: Session) -> tuple[str, str, int]:
    reason = error.strerror or str(error)
    if error.errno in _OF_THE_DISK and (session.output or error.filename is None):  # inputs tell their names
        place = f"{session.output}: " if session.output else ""
        return f"{place}cannot be written: {reason}", "nothing was kept; make room or name another place", _GENERAL
    where = f"{error.filename}: " if error.filename is not None else ""
    return f"{where}{reason}", "", _GENERAL


def _hint(error: BaseException) -> str:
    """The hint that the error carries, else the one for its cause, else the one for its type."""
    own, rule = getattr(error, "hint", None), getattr(error, "rule", "")
    if own is not None:
        return str(own)
    if type(error).__name__ == "CorruptFileError" and rule:
        return _DAMAGED if rule in _DIGEST_RULES else _MADE_SO
    return next((HINTS[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in HINTS), "")


def _usage_hint(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    return f"`{context.command_path} --help` shows how" if context is not None else ""


def _tell_more(error: BaseException) -> None:
    """With -v: every tensor that differs, and where a bug or a failing system call happened."""
    from diffpack.support.names import printable

    for name in getattr(error, "tensors", ()):
        warn(f"  {printable(name)}")
    if isinstance(error, Exception) and not isinstance(error, click.ClickException) and not hasattr(error, "exit_code"):
        warn("".join(traceback.format_exception(error)).rstrip())
