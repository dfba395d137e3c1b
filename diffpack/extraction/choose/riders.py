"""Small tensors that ride with large ones: stored in levels since those are, not in a group of their own.

What is best for small tensors by themselves costs a group, a chunk and tables of streams, and learns nothing from the
large ones. Among these, in one span, small ones share classes that many changes have filled; or are spoiled by them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from diffpack.extraction.choose.weigh import coded_bytes
from diffpack.extraction.encode.level_streams import Part, exact_streams
from diffpack.extraction.encode.pieces import Piece
from diffpack.extraction.encode.record_plan import RecordPlan
from diffpack.extraction.encode.spans import Span, spans_of
from diffpack.format.chunks import encode_chunk
from diffpack.format.positions.every_word import EVERY_WORD
from diffpack.format.positions.levels import LEVELS
from diffpack.support.parallel import run_all
from diffpack.tensors.info import BLOCK_WORDS

_SMALL = 1 << 16
"""Words of a tensor from which on a group of every word is not one of small tensors."""
_RIDERS = 1 << 20
"""Words of small tensors, at most, that are weighed: of more, a group and its tables are no thousandth of the bytes."""
_SPANS, _CHANGES = 4, 1 << 20
"""Spans that are looked at, at most, and changes in them, or one span: less than a tenth of a second."""
_HOST = 1 << 20
"""Words of a span that riders are coded among (RL-like updates of MiniLM: the bytes of a few thousand words come out as
in whole spans, but for a tenth)."""

_Riders = Mapping[str, RecordPlan]


def with_riders(plans: Sequence[RecordPlan], profile: str, threads: int | None) -> list[RecordPlan]:
    """Plans of exact records of the same dtypes; those with every word in levels, where that is smaller.

    Looked at are these if they are small ones only, and others are in levels without factors. Small ones in gaps stay:
    a few changes among many others cost as much, and may spoil which levels are best for those.
    """
    hosts = [plan for plan in plans if plan.position_coding is LEVELS and plan.factors is None]
    whole = [plan for plan in plans if plan.position_coding is EVERY_WORD]
    small = all(plan.scan.tuned.size < _SMALL and plan.count for plan in whole)
    if not whole or not small or sum(plan.scan.tuned.size for plan in whole) > _RIDERS:
        return list(plans)
    if not any(plan.count for plan in hosts):
        return list(plans)
    riders = {plan.scan.pair.name: replace(plan, position_coding=LEVELS) for plan in whole}
    if _added(hosts, riders, profile, threads) >= coded_bytes(whole, profile):
        return list(plans)
    return [riders.get(plan.scan.pair.name, plan) for plan in plans]


def _added(hosts: Sequence[RecordPlan], riders: _Riders, profile: str, threads: int | None) -> float:
    """Estimate the bytes that riders add to the spans of their hosts, by the spans that hold most of their changes."""
    line = sorted([*hosts, *riders.values()], key=lambda plan: plan.scan.pair.name)
    shares = [(sum(piece.count for piece in span.pieces if _rides(piece, riders)), span) for span in spans_of(line)]
    shares.sort(key=lambda share: -share[0])
    taken: list[tuple[int, Span]] = []
    room = _CHANGES
    for share, span in shares[:_SPANS]:
        room -= sum(piece.count for piece in span.pieces)
        if share and (room >= 0 or not taken):
            taken.append((share, span))
    added = sum(run_all([partial(_added_to, span, riders, profile) for _, span in taken], threads))
    return added * sum(share for share, _ in shares) / sum(share for share, _ in taken)


def _added_to(span: Span, riders: _Riders, profile: str) -> int:
    """The bytes that riders add to a span, of whose other words a part is coded, evenly spread."""
    every = max(1, sum(piece.stop - piece.start for piece in span.pieces) // _HOST)
    line = 0
    hosts: list[Part] = []
    both: list[Part] = []
    for piece in span.pieces:
        part = Part(piece.plan.scan, piece.start, piece.stop, piece.count)
        if _rides(piece, riders):
            both.append(part)
            continue
        if line // BLOCK_WORDS % every == 0:
            hosts.append(part)
            both.append(part)
        line += piece.stop - piece.start
    return _coded(both, span, profile) - (_coded(hosts, span, profile) if hosts else 0)


def _coded(parts: Sequence[Part], span: Span, profile: str) -> int:
    plan = span.pieces[0].plan
    return len(encode_chunk(exact_streams(parts, plan.scan.pair.info.dtype, plan.conditioned), profile).data)


def _rides(piece: Piece, riders: _Riders) -> bool:
    return piece.plan.scan.pair.name in riders
