"""Tensor and task names as names of files and HDF5 links: readable, reversible by anyone, never a path."""

from __future__ import annotations

from urllib.parse import quote

_PLAIN = " !#$&'()+,-;=@[]^_`{}~"  # besides letters, digits and inner dots
_MOST_BYTES = 200  # of 255 a file system allows, with room for an ending


def encoded(name: str, number: int | None = None) -> str:
    """A name percent-encoded, or `number` where that is too long to be one.

    The number starts with `%n`, which no encoded name does.
    """
    link = quote(name, safe=_PLAIN, errors="surrogatepass")
    link = link.replace(".", "%2E", 1) if link.startswith(".") else link
    if not link or len(link) > _MOST_BYTES:
        link = f"%n{number if number is not None else 0}"
    return link
