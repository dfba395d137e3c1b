"""Amounts on the command line: parts of a whole."""

from __future__ import annotations

from typing import Any

import click


class Share(click.types.FloatParamType):
    """A part of a whole: `0.005` or `0.5%`; a number above 1 without the sign is refused, since it may mean either."""

    name = "fraction"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it."""
        text = str(value).strip()
        number, percent = text.removesuffix("%"), text.endswith("%")
        try:
            share = float(number) / 100 if percent else float(number)
        except ValueError:
            self.fail(f"{text!r} is neither a fraction (0.005) nor a percentage (0.5%)", param, ctx)
        if share > 1 and not percent:
            self.fail(f"{text!r} is more than all of it (1, or 100%); a percentage has its sign: {number}%", param, ctx)
        if not 0 <= share <= 1:
            self.fail(f"{text!r} is no part of a whole, which is between 0 and 1, or 0% and 100%", param, ctx)
        return share
