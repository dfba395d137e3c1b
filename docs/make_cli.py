"""Write docs/cli.md from the commands themselves, and the schema of what `stats --json` prints; tests compare them.

python docs/make_cli.py
"""

from __future__ import annotations

import importlib
import inspect
import json
from pathlib import Path

import click

from diffpack import errors
from diffpack.report.rows import schema
from diffpack_cli.main import VERBS

HEAD = """# The command line

`python -m diffpack` is `diffpack`. Results go to standard output, everything else (progress, notes, errors) to standard error. An error is one line that says
what, where, and often what to do next; no output file is left behind. `-` stands for standard input or output where that makes sense.

| exit code | means |
|---|---|
| 0 | done |
| 1 | failed: a checkpoint cannot be read, the disk is full, the result is not the recorded one |
| 2 | wrong usage: options that do not fit, an output that exists or is an input |
| 10 | wrong base |
| 11 | the diff is damaged or no diff |
| 12 | the diff needs a newer diffpack |
| 13 | the diff lacks the signature that was asked for |
| 129, 130, 143 | hung up, interrupted, terminated |

`--json` on every verb prints one object with the members listed below; `a[].b` is member b of every item of the list a. Members may be
added, none is taken away or given another meaning within a major version of the library.
"""


def spelled(option: click.Option) -> str:
    """Give an option as it is typed, without click's own formatting, which changes between its versions."""
    choices = getattr(option.type, "choices", None)
    value = "" if option.is_flag else f" {option.metavar or '/'.join(map(str, choices or ['N']))}"
    return f"`{', '.join(option.opts)}{value}`"


def _fenced(text: str) -> str:
    """Put paragraphs that click is told to leave as they are between fences."""
    paragraphs = text.split("\n\n")
    return "\n\n".join(
        f"```text\n{part.removeprefix(_AS_IT_IS)}\n```" if part.startswith(_AS_IT_IS) else part for part in paragraphs
    )


_AS_IT_IS = "\b\n"


def render() -> str:
    codes = {kind.exit_code for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "exit_code")}
    missing = [code for code in codes if f"| {code} |" not in HEAD]
    if missing:
        raise SystemExit(f"exit codes without a row: {missing}")
    parts = [HEAD]
    for verb in VERBS:
        module = importlib.import_module(f"diffpack_cli.{verb}")
        parts.append(f"## {verb}\n\n{_fenced(inspect.cleandoc(module.command.help))}\n")
        options = [param for param in module.command.params if isinstance(param, click.Option)]
        rows = "\n".join(f"| {spelled(option)} | {option.help} |" for option in options)
        parts.append(f"| option | |\n|---|---|\n{rows}\n")
        for what, name in (("", "KEYS"), (" of several", "KEYS_OF_SEVERAL")):
            if keys := getattr(module, name, None) or (not what and hasattr(module, "keys") and module.keys()):
                rows = "\n".join(f"| `{key}` | {meaning} |" for key, meaning in keys.items())
                parts.append(f"| `--json`{what} | is |\n|---|---|\n{rows}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    (Path(__file__).parent / "cli.md").write_text(render())
    (Path(__file__).parent / "stats.schema.json").write_text(json.dumps(schema(), indent=1) + "\n")
