"""How the pages' figures are drawn: SVG whose text is text, the same bytes from the same numbers."""

from __future__ import annotations

import io
import re
from collections import Counter
from pathlib import Path
from typing import Any

FONTS = ["DejaVu Sans", "Verdana", "Arial", "sans-serif"]
"""matplotlib measures with the first, a browser shows the first it has."""
_TAG = re.compile("<[^>]*>")  # numbers between tags are what the figure says
_FINE = re.compile(r"(?<=\d)(\.\d\d)\d+")  # digits beyond a hundredth of a point
_NAME = re.compile(r"(?<=<g) id=\"[a-z]+[\dd]*_\d+\"")  # names nothing refers to
_STYLE = re.compile(r'style="([^"]+)"')


def pyplot(font_size: float) -> Any:
    """Import matplotlib for drawing SVG files."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams |= {
        "svg.hashsalt": "diffpack",
        "svg.fonttype": "none",
        "font.size": font_size,
        "font.family": FONTS[:1],
    }
    from matplotlib import pyplot as plt

    return plt


def percent_axis(axis: Any, ticks: list[float] | None = None) -> None:
    """Show plain numbers at few ticks of a logarithmic axis, and none between."""
    from matplotlib.ticker import NullLocator

    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter("{x:g}")
    if ticks is not None:
        axis.set_ticks(ticks)


def bare(axes: Any, *sides: str) -> None:
    """Leave out the frame's lines at some sides."""
    for side in sides:
        axes.spines[side].set_visible(False)


def save(figure: Any, target: str | Path) -> None:
    """Write a figure without a date, with fonts every system has to fall back on, and no more bytes than it shows."""
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = drawn.getvalue().replace(f"'{FONTS[0]}'", ", ".join(f"'{font}'" if " " in font else font for font in FONTS))
    text = _styled_once(_TAG.sub(lambda tag: _FINE.sub(r"\1", tag[0]), _NAME.sub("", text)))
    Path(target).write_text("".join(f"{line.strip()}\n" for line in text.splitlines()))


def _styled_once(text: str) -> str:
    """Say a style that many elements have once, as a class."""
    often = [style for style, count in Counter(_STYLE.findall(text)).items() if count > 2]
    classes = {style: f"c{at}" for at, style in enumerate(often)}

    def named(match: re.Match[str]) -> str:
        return f'class="{classes[match[1]]}"' if match[1] in classes else match[0]

    rules = "".join(f".{name}{{{style}}}\n" for style, name in classes.items())
    return _STYLE.sub(named, text).replace("</style>", f"\n{rules}</style>", 1)
