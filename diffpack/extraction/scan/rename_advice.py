"""Say so where a model is stored as new although it may be the base's under other names, and by which rules."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Sequence

from diffpack.checkpoints import Checkpoint
from diffpack.extraction.scan.pairs import Pairing
from diffpack.extraction.scan.renames import matched_by_name
from diffpack.extraction.scan.scan import Scan
from diffpack.support.names import printable
from diffpack.tensors.rename import Rename, own_names

_MOST_RULES = 4
"""Rules that a line of text names."""
_NUMBER = re.compile(r"\d+")


def rename_advice(
    stored: Sequence[Scan], base: Checkpoint, tuned: Checkpoint, pairing: Pairing, threads: int | None
) -> str | None:
    """What to tell people whose diff holds most bytes as new, if the base loses as many of the same dtypes and shapes.

    `stored` are the tensors that are stored. None if there is nothing to tell.
    """
    new = {item.pair.name: item.pair.info for item in stored if item.pair.base is None}
    nbytes = sum(info.nbytes for info in new.values())
    if not pairing.removed or 2 * nbytes <= tuned.nbytes:
        return None
    view = own_names(base.tensors, pairing.rename)
    gone = {view[name]: base.info(view[name]) for name in pairing.removed}
    alike = Counter(new.values()) & Counter(gone.values())
    if 2 * sum(info.nbytes for info in alike.elements()) <= nbytes:
        return None
    pairs = {pair.base_name: pair.name for pair in pairing.pairs if pair.base_name is not None and pair.source is None}
    rules = matched_by_name(base, tuned, pairs, set(gone), set(new), threads)
    said = (
        f"{len(new):,} tensors, most bytes of {tuned.source}, are stored as new, and the base loses {len(gone):,}, "
        "which have the same dtypes and shapes; if they are the same, say how they are called: "
    )
    if rules == pairing.rename:
        return f"{said}--rename OLD=NEW ({printable(min(new))} is new, {printable(min(gone))} is gone)"
    return said + " ".join(f"--rename {shlex.quote(rule)}" for rule in as_options(rules))


def as_options(rules: Rename) -> list[str]:
    """What --rename takes for these rules: as they are if they are few, else patterns that stand for any number.

    More than a few are left out, as an ellipsis.
    """
    said = [f"{old}={new}" for old, new in rules]
    if len(said) > _MOST_RULES:
        said = list(dict.fromkeys(_pattern(old, new) for old, new in rules))
    return said[:_MOST_RULES] + (["..."] if len(said) > _MOST_RULES else [])


def _pattern(old: str, new: str) -> str:
    numbers = _NUMBER.findall(old)
    if not numbers or _NUMBER.findall(new) != numbers:
        return f"{old}={new}"
    groups = iter(range(1, len(numbers) + 1))
    escaped = r"(\d+)".join(map(re.escape, _NUMBER.split(old)))
    replacement = _NUMBER.sub(lambda _: f"\\{next(groups)}", new)
    return f"re:^{escaped}={replacement}"
