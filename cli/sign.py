"""`diffpack sign`: a diff and a private SSH key -> a signature beside it."""

from __future__ import annotations

import os
import sys

import click

from .destination import refuse_output
from .options import STDIO, OutputPath, Session, diff_argument, force_option, global_options, read_diff
from .output import emit, emit_json, safe
from .signatures import binding

KEYS = {
    "path": "where the signature was written",
    "diff": "the diff",
    "signed_by": "fingerprint of the key, as `ssh-keygen -l` prints it",
    "signed_as": 'the file\'s name that the signature binds, "" if any',
}
"""What `--json` prints."""

PASSPHRASE = "DIFFPACK_KEY_PASSPHRASE"  # noqa: S105 - the variable's name


@click.command()
@diff_argument
@click.option("--key", type=click.Path(), metavar="KEY", help="A private Ed25519 key of OpenSSH's: ~/.ssh/id_ed25519.")
@click.option("-o", "--output", type=OutputPath(), metavar="OUT", help="The signature  [default: DIFF.sig]")
@click.option("--signed-as", metavar="NAME", help="The file's name to bind  [default: the diff's]")
@click.option("--any-name", is_flag=True, help="Bind no name: the diff may be renamed, or exchanged for another.")
@click.option(
    "--message", is_flag=True,
    help="Print what is signed instead, for `ssh-keygen -Y sign -n diffpack` and the agent or token that has the key.",
)  # fmt: skip
@force_option
@global_options
@click.pass_obj
def command(
    session: Session, diff: str, key: str | None, output: str | None, signed_as: str | None, any_name: bool,
    message: bool, force: bool,
) -> None:  # fmt: skip
    """Sign DIFF with an SSH key, so that others can tell who made it.

    The signature is one of OpenSSH's (namespace diffpack), over the diff's content and its file's name. A key with a
    passphrase is opened by DIFFPACK_KEY_PASSPHRASE, or asks for it on the terminal. DIFF may be - for standard input.
    """
    name = _name(diff, signed_as, any_name)
    if message:
        _print_message(session, diff, name, key, output)
        return
    if key is None:
        raise click.UsageError("--key names the private key to sign with")
    if output is None and diff == STDIO:
        raise click.UsageError("a diff from standard input has no place for its signature beside it: name one with -o")
    target = output or f"{diff}.sig"
    if target == STDIO and session.json:
        raise click.UsageError("-o - and --json both want standard output")
    if target != STDIO:
        refuse_output(target, [diff, key], force)
    source = read_diff(diff)
    import diffpack

    session.output = target
    made = diffpack.sign(
        source, key, None if target == STDIO else target, name=name, passphrase=lambda: _passphrase(key), force=force
    )
    if target == STDIO:
        emit(made.to_bytes().decode().rstrip("\n"))
        return
    session.output, session.written = None, target
    bound = os.path.basename(diff) if name is None else name
    report = {"path": target, "diff": diff, "signed_by": made.fingerprint, "signed_as": bound}
    if session.json:
        emit_json(report)
    elif not session.quiet:
        emit(f"{safe(target)}: {safe(diff)} is signed by {made.fingerprint}, {binding(bound)}")


def _name(diff: str, signed_as: str | None, any_name: bool) -> str | None:
    """The name to bind: None for the diff's own, "" for none."""
    if any_name and signed_as is not None:
        raise click.UsageError("--any-name and --signed-as exclude each other")
    if any_name:
        return ""
    if signed_as == "" or (signed_as is None and diff == STDIO):
        raise click.UsageError("the diff has no file's name to bind: --signed-as NAME gives it one, --any-name none")
    return signed_as


def _print_message(session: Session, diff: str, name: str | None, key: str | None, output: str | None) -> None:
    """Print what is signed, to the byte."""
    if key is not None or output is not None or session.json:
        raise click.UsageError("--message prints what another program signs: without --key, -o and --json")
    from diffpack import open as open_diff
    from diffpack.signing.message import message, name_of

    opened = open_diff(read_diff(diff))
    sys.stdout.buffer.write(message(opened, (name_of(opened) or "") if name is None else name))
    sys.stdout.buffer.flush()


def _passphrase(key: str) -> str:
    """The key's passphrase, from the environment or the terminal. Raises `click.UsageError` if there is neither."""
    given = os.environ.get(PASSPHRASE)
    if given:
        return given
    if not _has_terminal():
        raise click.UsageError(f"{key} asks for a passphrase, and there is no terminal: put it into {PASSPHRASE}")
    return str(click.prompt(f"passphrase of {key}", hide_input=True, err=True))


def _has_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()
