"""The templates and the words they have: names of files and tensors are hostile input, and are escaped everywhere."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from diffpack.support.amounts import few_bits, percent, plural, size, times
from diffpack.support.names import printable

_TEMPLATES = "templates"
_PARTS = re.compile(r"[^._/\\-]*[._/\\-]*(?:(?<=.)|$)", re.DOTALL)


def render(template: str, **values: Any) -> str:
    """Fill a template of this package."""
    return _environment().get_template(template).render(**values)


def own_text(name: str) -> Markup:
    """A file of this package that is placed as it is: the style and the script, which are not made of input."""
    text = files(__package__).joinpath(_TEMPLATES, name).read_text("utf-8")
    return Markup(text)  # noqa: S704 - it is ours


def allowed_hash(text: str) -> str:
    """What a content security policy calls a script by, so that no other one runs."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def grouped(number: int) -> str:
    """An exact count: `1,234,567`."""
    return f"{number:,}"


def share(fraction: float) -> str:
    """A percentage under a heading that says so: `0.502`."""
    return percent(fraction).removesuffix(" %")


def brief_share(fraction: float) -> str:
    """The same in at most four characters, for many narrow cells: `0.50`, `12.5`."""
    number = 100 * fraction
    if number == 0:
        return "0"
    return (
        "<.01"
        if number < 0.005
        else f"{number:.2f}"
        if number < 9.995
        else f"{number:.1f}"
        if number < 99.95
        else "100"
    )


def width(part: float, whole: float) -> str:
    """The length of a bar as CSS: `42.1%`; what is not nothing can be seen."""
    return f"{max(0.4, min(100.0, 100 * part / whole)):.1f}%" if whole and part else "0"


def breakable(name: str) -> Markup:
    """A name that can go on in the next line after its dots, slashes, lines."""
    return Markup("<wbr>").join(_PARTS.findall(printable(name)))


@cache
def _environment() -> Environment:
    found = Environment(
        loader=PackageLoader(__package__, _TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {
        "name": printable, "size": size, "percent": percent, "share": share, "times": times, "plural": plural,
        "breakable": breakable, "brief_share": brief_share, "few_bits": few_bits, "grouped": grouped, "width": width,
    }  # fmt: skip
    found.policies["json.dumps_kwargs"] = {"sort_keys": True, "separators": (",", ":")}
    return found
