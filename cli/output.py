"""What is printed, and how: text tables, sizes, percentages, JSON. Results go to stdout, all else to stderr."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import click

from .options import Session

Report = dict[str, Any]
"""What a verb found, as `--json` prints it; the text is made from it."""

_MOST_NAMED = 5  # names a line of text lists; --json has them all
_FEW_NOTES = 3  # remarks that are told without being asked for; of many only how many there are


def emit(text: str) -> None:
    """Print a result. Raises `click.ClickException` if stdout cannot take it, `BrokenPipeError` if nobody reads."""
    try:
        click.echo(text)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise click.ClickException(f"standard output: cannot be written: {error.strerror}") from None


def emit_json(report: Report) -> None:
    """Print one JSON object, in ASCII, so that no name in it can move a terminal's cursor."""
    emit(json.dumps(report, indent=2, allow_nan=False).replace("\x7f", "\\u007f"))


def warn(text: str) -> None:
    """Print to stderr."""
    click.echo(text, err=True)


def notes(session: Session, remarks: Sequence[str]) -> None:
    """Tell remarks about checkpoints on stderr: with -v, or if there are few, in full, else how many there are."""
    if session.verbose or (len(remarks) <= _FEW_NOTES and not session.quiet):
        for note in remarks:
            warn(f"note: {one_line(note)}")
    elif remarks and not session.quiet:
        warn(f"diffpack: {plural(len(remarks), 'note')} about the inputs; -v shows them")


def advise(session: Session, advice: Sequence[str]) -> None:
    """Tell on stderr what people should know at once, and do about it."""
    if not session.quiet:
        for text in advice:
            warn(f"diffpack: {one_line(text)}")


def tell_left_out(session: Session, left_out: Sequence[str], what: str = "not stored") -> None:
    """Say on stderr what of an input is kept nowhere (people delete originals), or not given back."""
    if left_out and not session.quiet:
        warn(f"diffpack: {what}: {one_line(listed(sorted(left_out), 'item'))}")


def one_line(text: str) -> str:
    """Text without line ends and other characters that a terminal acts on."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def mode(exact: bool) -> str:
    """Say `exact` or `lossy`."""
    return "exact" if exact else "lossy"


def size(nbytes: int) -> str:
    """A size in decimal units: `812 bytes`, `29.9 MB`."""
    from diffpack.support import amounts

    return amounts.size(nbytes)


def percent(fraction: float) -> str:
    """A fraction as a percentage of three digits; what is not nothing, or not all, never looks so."""
    from diffpack.support import amounts

    return amounts.percent(fraction)


def few_bits(bits: float) -> str:
    """Bits for each change: one digit behind the point, two that count below one."""
    from diffpack.support import amounts

    return amounts.few_bits(bits)


def plural(count: int, noun: str) -> str:
    """A count with its noun: `1 tensor`, `2,000 tensors`, `0 entries`."""
    from diffpack.support import amounts

    return amounts.plural(count, noun)


def listed(names: Sequence[str], noun: str = "tensor") -> str:
    """How many there are, and the first few, made safe for a terminal."""
    shown = ", ".join(safe(name) for name in names[:_MOST_NAMED])
    more = f" and {len(names) - _MOST_NAMED:,} more" if len(names) > _MOST_NAMED else ""
    return f"{plural(len(names), noun)}: {shown}{more}"


def safe(name: str) -> str:
    """A name from a file, written so that it cannot move a terminal's cursor."""
    from diffpack.support.names import printable

    return printable(name) if name else name


def fields(rows: Iterable[tuple[str, str]], indent: str = "  ") -> list[str]:
    """Align `label  value` lines; rows without a value are left out."""
    kept = [(label, value) for label, value in rows if value]
    width = max((len(label) for label, _ in kept), default=0)
    return [f"{indent}{label:<{width}}  {value}" for label, value in kept]


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: frozenset[int] = frozenset({0})) -> list[str]:
    """Align columns; those in `left` to the left, numbers to the right."""
    widths = [max(len(row[at]) for row in (head, *rows)) for at in range(len(head))]
    return [
        "  ".join(
            cell.ljust(width) if at in left else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (head, *rows)
    ]
