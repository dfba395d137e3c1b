"""Steps in classes of the reference's exponent, format 1.0 (`levels` does the same and more; this is only read).

In a narrow dtype a weight moves only if its update exceeds half a unit in the last place, so the chance to change
doubles with each exponent below; in a wide one the size of a step follows the exponent. Words of like exponent are
therefore coded together: first all of the smallest, in the order of the line, then the next.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from diffpack.errors import CorruptFileError
from diffpack.format.manifest import Group
from diffpack.format.positions import grouped
from diffpack.format.positions.coding import Decoded, PositionCoding, Span
from diffpack.format.positions.split import Split
from diffpack.format.streams import Numbers
from diffpack.format.values import VALUE_CODINGS, ValueCoding
from diffpack.tensors.dtypes import CONVERTIBLE


class Classes(PositionCoding):
    """A stream that says how each class is stored, then the streams of the classes."""

    id = "classes"
    since = 0
    rule = "K1"
    checked_apart = True

    def needs_base(self, group: Group) -> bool:
        """Say yes: the base tells which words are in a class."""
        return True

    def counted(self, value_coding: ValueCoding) -> bool:
        """Say yes: nobody can count changes without the base."""
        return True

    def contexts(self, streams: list[Numbers], where: str) -> Sequence[str]:
        """Say that exponents make the classes."""
        return ("exponent",)

    def check_group(self, group: Group, where: str) -> None:
        """Check that there are exponents, and spans of bounded size. Raises `CorruptFileError` (K1, F8)."""
        exact = VALUE_CODINGS[group.value_coding_id].exact
        if not exact or group.base_dtype is None or group.dtype not in CONVERTIBLE:
            message = f"{where}: classes need exact values, a base, and a dtype with an exponent"
            raise CorruptFileError(message, self.rule)
        self.check_counts(group, where)
        grouped.check_spans(group, self.id, where)

    def check_without_base(self, streams: list[Numbers], span: Span) -> bool:
        """Check that the streams are those the kinds ask for. Raises `CorruptFileError` (K2, V2)."""
        if not streams or streams[0].dtype != np.uint8 or streams[0].size > grouped.most(span.words):
            raise CorruptFileError(f"{span.where}: its first stream does not say how classes are stored", "K2")
        grouped.check(streams[0].tolist(), streams[1:], span.line.dtype.step, span.where)
        return False

    def decode(self, streams: list[Numbers], span: Span) -> Decoded:
        """The steps of all words, 0 where nothing changes. Raises `CorruptFileError` (K rules)."""
        self.check_without_base(streams, span)
        own = Split.by(span.exponents())
        steps = np.zeros(span.words, span.line.dtype.step)
        own.fill(steps, list(grouped.decode(streams[0].tolist(), streams[1:], own, span.where)))
        return None, steps


CLASSES = Classes()
