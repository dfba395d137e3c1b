"""Zip archives whose members are changed, with checksums and directory made right again."""

from __future__ import annotations

import io
import random
import zipfile
from collections.abc import Mapping

from tests.fuzz.changes import BYTES, Change, one_of

_FAR = (1980, 1, 1, 0, 0, 0)


def archive(members: Mapping[str, bytes], packed: bool) -> bytes:
    """An archive of members; the same bytes each time."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as file:
        for name, data in members.items():
            file.writestr(zipfile.ZipInfo(name, _FAR), data, compress_type=file.compression)
    return out.getvalue()


def change_archive(changes: Mapping[str, Change], packed: bool = False) -> Change:
    """Change one member by the change that its ending has (any bytes without one), or the archive itself."""

    def inside(data: bytes, rng: random.Random) -> bytes:
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as file:
                members = {name: file.read(name) for name in file.namelist()}
        except Exception:  # it was damaged before
            return BYTES(data, rng)
        if not members:
            return BYTES(data, rng)
        name = rng.choice(sorted(members))
        match rng.randrange(12):
            case 0:
                members[name + rng.choice(["x", "/", ".npy", "\\", "0"])] = members[name]
            case 1:
                del members[name]
            case 2:
                other = rng.choice(sorted(members))
                members[name], members[other] = members[other], members[name]
            case _:
                by = next((change for ending, change in changes.items() if name.endswith(ending)), BYTES)
                members[name] = by(members[name], rng)
        return archive(members, packed and rng.random() < 0.5)

    return one_of([inside, inside, inside, inside, BYTES])
