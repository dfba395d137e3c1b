"""`diffpack completion`: the script that lets a shell complete verbs, options and files."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from .options import Session, global_options
from .output import emit, emit_json

KEYS = {"shell": "the shell", "script": "what it must evaluate"}
"""What `--json` prints."""

_VARIABLE = "_DIFFPACK_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@global_options
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print the script that lets SHELL complete diffpack.

    \b
    bash:  diffpack completion bash > ~/.local/share/bash-completion/completions/diffpack
    zsh:   eval "$(diffpack completion zsh)"          (in ~/.zshrc)
    fish:  diffpack completion fish > ~/.config/fish/completions/diffpack.fish
    """  # noqa: D301 - click's mark is the character itself
    completer = get_completion_class(shell)
    assert completer is not None  # the choices above are those click has
    completing = completer(context.find_root().command, {}, "diffpack", _VARIABLE)
    script = completing.source_template % completing.source_vars()  # source() would start a bash to ask its version
    if context.ensure_object(Session).json:
        emit_json({"shell": shell, "script": script})
    else:
        emit(script)
