"""What a signature is of: a few lines of text that name a diff's content and, where it is bound, its file's name.

::

    diffpack signature v1
    blake3 67d4...                   Diff.identity, 64 hexadecimal digits
    name sst2.dpk                    left out where the signature holds under any name

The digest is that of header, manifest and the trailer's fields; the manifest has the BLAKE3 digest of every chunk, and
the chunks fill the file (rules F5, F7, C2 of the specification). So there is one file, to the byte, for a message, and
whoever holds a parsed manifest with that digest may read chunks from wherever they come: each is checked before it is
used. The first line, and the namespace of SSHSIG, keep a signature of anything else from being one of a diff. The name
keeps two files of one signer from being exchanged, each with its own valid signature. A name is the last line and has
no line ends, so no message reads as another.
"""

from __future__ import annotations

import unicodedata

from diffpack.diff.diff import Diff
from diffpack.errors import UsageError

_FIRST_LINE = "diffpack signature v1"


def message(diff: Diff, name: str) -> bytes:
    """The bytes that are signed of a diff called `name`; "" is any name. Raises `UsageError` for what is no name."""
    if not is_plain(name):
        raise UsageError(f"{name!r} is not the plain name of a file, which a signature could hold")
    lines = [_FIRST_LINE, f"blake3 {diff.identity}"]
    if name:
        lines.append(f"name {unicodedata.normalize('NFC', name)}")  # file systems change the form
    return ("\n".join(lines) + "\n").encode()


def is_plain(name: str) -> bool:
    """Whether a signature can hold a file's name: no folder, no letter that cannot be seen."""
    return "/" not in name and name.isprintable()


def name_of(diff: Diff) -> str | None:
    """The name of the file a diff was opened from, None if it was not opened from one."""
    return None if diff.path is None else diff.path.name
