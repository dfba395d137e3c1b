"""A page whose tables are written by a command, between two marks."""

from __future__ import annotations


def placed(page: str, begin: str, end: str, text: str) -> str:
    """Replace what stands between two marks of a page's text. Raises `ValueError` if they are not there."""
    before, _, rest = page.partition(begin)
    _, mark, after = rest.partition(end)
    if not mark:
        raise ValueError(f"the page has lost its marks, {begin} and {end}")
    return f"{before}{begin}\n\n{text}\n\n{end}{after}"
