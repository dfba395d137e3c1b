"""The command line run in this process, for the tests of it."""

from __future__ import annotations

import re

from click.testing import CliRunner, Result

from diffpack_cli.main import cli


def run(*args: str, stdin: bytes = b"") -> Result:
    done = CliRunner().invoke(cli, args, input=stdin)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def ok(*args: str, stdin: bytes = b"") -> str:
    done = run(*args, stdin=stdin)
    assert done.exit_code == 0, done.stderr
    return done.stdout


def fails(code: int, message: str, *args: str, stdin: bytes = b"") -> str:
    """Run and check the exit code, that stdout is empty, and that there is one line of error; give stderr."""
    done = run(*args, stdin=stdin)
    assert done.exit_code == code, done.output
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert re.match(f"diffpack: error: .*{message}", lines[0]), done.stderr
    assert [line for line in lines[1:] if not line.startswith("hint: ")] == []
    return done.stderr
