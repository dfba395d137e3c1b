"""The signature a diff is to have, where one is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffpack.diff.diff import Diff

if TYPE_CHECKING:
    from diffpack.signing.checking import SignatureWanted, Signed


def signed_as_asked(diff: Diff, wanted: SignatureWanted) -> Signed | None:
    """Check an opened diff against the signature that is asked for, if one is: only then what reads them is loaded.

    Raises as `check_signature` does.
    """
    if wanted is None:
        return None
    from diffpack.signing import RequiredSignature, check_signature

    asked = wanted if isinstance(wanted, RequiredSignature) else RequiredSignature(wanted)
    return check_signature(diff, asked.signers, asked.signature, name=asked.name)
