"""Words that a rule tells, from the base or a seed: their positions take no bytes. Each record's are derived once."""

from __future__ import annotations

from functools import partial

import numpy as np

from diffpack.errors import BaseNeededError, CorruptFileError
from diffpack.format import limits
from diffpack.format.manifest import Group
from diffpack.format.positions import rule_words
from diffpack.format.positions.coding import Decoded, Line, PositionCoding, Span
from diffpack.format.positions.rule_words import Rule
from diffpack.format.streams import Numbers
from diffpack.format.values import ValueCoding
from diffpack.tensors.dtypes import CONVERTIBLE, Positions


class ByRule(PositionCoding):
    """One stream: a number for each word that the group's rule tells."""

    id = "rule"
    since = 1
    rule = "W1"
    checked_apart = True
    keeps_zeros = True

    def needs_base(self, group: Group) -> bool:
        """Say whether the base tells the words, and not a seed."""
        rule = Rule.parse(group.rule or "")
        return rule is not None and rule.by_weight

    def counted(self, value_coding: ValueCoding) -> bool:
        """Say yes: the rule tells as many words as the count says."""
        return True

    def check_group(self, group: Group, where: str) -> None:
        """Check that there is a rule, and how many words it tells of each record. Raises `CorruptFileError` (W, F8)."""
        rule = Rule.parse(group.rule or "")
        if rule is None:
            raise CorruptFileError(f"{where}: {group.rule!r} is no rule for positions", self.rule)
        self.check_counts(group, where)
        words = [group.tensor_dtype.words(shape) for shape in group.shapes]
        if any(not 0 <= count <= size for count, size in zip(group.counts or (), words, strict=True)):
            raise CorruptFileError(f"{where}: more words chosen than a record has", self.rule)
        if rule.by_weight and (group.base_dtype is None or group.dtype not in CONVERTIBLE):
            raise CorruptFileError(f"{where}: the {rule} words need a base of floats", "W2")
        if max(words) > limits.RULE_WORDS:
            raise CorruptFileError(f"{where}: a record too large for a rule", "F8")

    def encode(self, positions: Positions, numbers: Numbers, start: int, stop: int) -> list[Numbers]:
        """The numbers; every reader knows the positions."""
        return [numbers]

    def check_without_base(self, streams: list[Numbers], span: Span) -> bool:
        """Check that there are as many numbers as words may be told. Raises `CorruptFileError` (W3, V rules)."""
        least, most = _bounds(span)
        numbers = _numbers(streams, span)
        if not least <= numbers.size <= most:
            message = f"{span.where}: {numbers.size} values, where {least} to {most} are chosen"
            raise CorruptFileError(message, "W3")
        return False

    def decode(self, streams: list[Numbers], span: Span) -> Decoded:
        """The words that the rule tells, and their numbers. Raises `CorruptFileError` (W3, V rules)."""
        numbers, line = _numbers(streams, span), span.line
        places = [np.empty(0, np.int64)]
        for record, first, last in span.parts():
            positions = line.derived.get(record, partial(_told, line, record))
            low, high = np.searchsorted(positions, [first, last])
            places.append(positions[low:high] + line.starts[record])
        told = np.concatenate(places)
        if told.size != numbers.size:
            raise CorruptFileError(f"{span.where}: {numbers.size} values for {told.size} chosen words", "W3")
        return told, numbers


def _counts(line: Line) -> tuple[int, ...]:
    assert line.group.counts is not None  # rule W1
    return line.group.counts


def _bounds(span: Span) -> tuple[int, int]:
    """How many words at least, and at most, are told in a span, whichever these are."""
    least = most = 0
    for record, start, stop in span.parts():
        count, outside = _counts(span.line)[record], span.line.words(record) - (stop - start)
        least += max(0, count - outside)
        most += min(count, stop - start)
    return least, most


def _told(line: Line, record: int) -> Positions:
    """The words of a record that the rule tells. Raises `BaseNeededError`, `CorruptFileError`."""
    rule = Rule.parse(line.group.rule or "")
    assert rule is not None  # rule W1
    name, count, words = line.group.names[record], _counts(line)[record], line.words(record)
    try:
        if not rule.by_weight:
            return rule_words.at_random(rule, name, words, count)
        if line.references is None:
            raise BaseNeededError(f"{line.where}: the base tells which words of {name!r} change")
        return rule_words.by_weight(rule, line.references(name).slice(0, words), count)
    except MemoryError:
        raise CorruptFileError(f"{line.where}: {name!r} is too large for this machine", "F8") from None


def _numbers(streams: list[Numbers], span: Span) -> Numbers:
    if len(streams) != 1:
        raise CorruptFileError(f"{span.where}: {len(streams)} streams, not one of values", "W3")
    span.check_numbers(streams[0])
    return streams[0]


BY_RULE = ByRule()
