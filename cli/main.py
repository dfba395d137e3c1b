"""The entry point: the verbs, found by name and loaded when used, so that `--help` costs nothing.

No module of this package imports the library, numpy or rich at its top: a verb does so when it runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NoReturn

import click

from .errors import report
from .interrupts import BROKEN_PIPE, Interrupted, heard, raise_on_signals
from .options import Session, global_options

VERBS = {
    "extract": "Store a tuned checkpoint as its difference from the base.",
    "apply": "Write the result of a diff on its base.",
    "stats": "Show what diffs change and what they cost.",
    "inspect": "Show what a diff says about itself.",
    "verify": "Check a diff, with its base also the result.",
    "sign": "Sign a diff with an SSH key, so that others can tell who made it.",
    "fingerprint": "Print the content hash of checkpoints.",
    "compose": "Squash a chain of exact diffs into one.",
    "invert": "Make the exact undo of a diff.",
    "merge": "Merge diffs of one base into one.",
    "diff": "Show how two diffs of one base differ.",
    "rebase": "Carry the change of a diff over to another base.",
    "rename": "Give the tensors of a diff's result other names.",
    "train": "Tune a model on labelled texts and store the task as a diff.",
    "convert": "Write a diff in another tool's format, or read one.",
    "completion": "Print the script that lets a shell complete diffpack.",
}
"""Every verb (its module has that name and holds it as `command`) and its one line in the help."""


class Verbs(click.Group):
    """The group of all verbs. Errors become one line and an exit code here, for every caller."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The verbs in the order of the help."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Load a verb."""
        if cmd_name not in VERBS:
            return None
        command: click.Command = import_module(f"{__package__}.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        """Write the list of verbs without loading them."""
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Show the help, as a mistake, where no verb is given."""
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help(), err=True)
            ctx.exit(2)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a verb; a reader that went away (`diffpack stats ... | head`) ends it quietly."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise Interrupted(BROKEN_PIPE) from None

    def main(  # type: ignore[override] # never returns: both of click's modes end in an exit code here
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,  # noqa: ARG002 - click's signature; the name is always the same
        **extra: Any,
    ) -> NoReturn:
        """Run with `args` and leave by `SystemExit`."""
        session = Session()
        options = {**extra, "standalone_mode": False, "obj": session}
        try:
            code = super().main(args, "diffpack", **options)
        except Interrupted as stop:
            sys.exit(report(stop, session))  # from in here, so that it stays alive and further signals are ignored
        except BaseException as error:  # also what libraries in Rust panic with
            if (stopped := heard()) is not None:
                sys.exit(report(stopped, session))
            if not isinstance(error, Exception):
                raise
            code = report(error, session)
        sys.exit(code if isinstance(code, int) else 0)


@click.group(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    subcommand_metavar="VERB [OPTIONS] ...",
    epilog="`diffpack VERB --help` tells more. Options of this page also stand after the verb.",
)
@global_options
def cli() -> None:
    """Store a fine-tuned model as its difference from the base: small, exact, verified."""


def main(end_on_signals: Callable[[], None] | None = None) -> NoReturn:
    """Run the command line in a process of its own, in which signals raise already if what ends that is given."""
    end_on_signals = end_on_signals or raise_on_signals()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # a name that the terminal's encoding lacks must not end in a traceback
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # text streams both
    try:
        cli.main()
    finally:
        end_on_signals()
        _let_go_of_output()


def _let_go_of_output() -> None:
    """Flush stdout now; if it cannot take the rest (closed pipe, full disk), keep Python from trying again."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
