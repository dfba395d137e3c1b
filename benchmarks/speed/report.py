"""The tables of docs/speed.md, and what the project asks of its times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.speed import fine_tunes
from benchmarks.speed.made import JOINED, KINDS, SMALL
from benchmarks.speed.results import APPLY, EXTRACT, Row
from diffpack.format.features import PROFILES

Rows = Mapping[tuple[str, int, str, str], Row]
OURS = "diffpack"
_ABOUT = {kind.name: kind.about for kind in KINDS} | {
    SMALL: "bfloat16, tensors of 64 x 64 in four shards, 1 % changed",
    JOINED: "the same entries in 20 tensors",
}
_HEAD = (
    "| | diff, bytes | % | extract, s | x reading, hashing | apply, s | x copying, hashing | peak memory, MB |\n"
    "|---|--:|--:|--:|--:|--:|--:|--:|"
)


@dataclass(frozen=True)
class Claim:
    """Something that is asked of the numbers: what was found, and the most it may be."""

    what: str
    found: float
    most: float

    @property
    def holds(self) -> bool:
        """Whether it is so."""
        return self.found <= self.most

    def __str__(self) -> str:
        return f"{'ok  ' if self.holds else 'MISS'} {self.what}: {self.found:.3g}, at most {self.most:g}"


def pairs_of(rows: Rows) -> list[tuple[str, int]]:
    """The pairs that were measured, kind by kind from the smallest up."""
    order = [*_ABOUT]
    return sorted(
        {(kind, size) for kind, size, *_ in rows if kind in _ABOUT}, key=lambda pair: (order.index(pair[0]), pair[1])
    )


def tools_of(rows: Rows, pair: tuple[str, int]) -> list[str]:
    """The tools that were measured on a pair: diffpack's profiles first, then peers by their extract's seconds."""
    found = {tool for kind, size, tool, _ in rows if (kind, size) == pair and tool != "plain"}
    own = [f"{OURS} {profile}" for profile in PROFILES]
    peers = sorted(found.difference(own), key=lambda tool: rows[*pair, tool, EXTRACT].seconds)
    return [tool for tool in own if tool in found] + peers


def tables(rows: Rows) -> str:
    """A table for each pair."""
    parts = []
    for kind, size in pairs_of(rows):
        plain = [rows[kind, size, "plain", verb].seconds for verb in (EXTRACT, APPLY)]
        parts += [
            f"### {kind}, {size:,} MB",
            f"{_ABOUT[kind][:1].upper()}{_ABOUT[kind][1:]}. "
            f"Reading and hashing both sides: {plain[0]:.2f} s; copying and hashing: {plain[1]:.2f} s.",
            "\n".join([_HEAD, *(_line(rows, kind, size, tool) for tool in tools_of(rows, (kind, size)))]),
        ]
    return "\n\n".join(parts)


def _line(rows: Rows, kind: str, size: int, tool: str) -> str:
    making, giving = rows[kind, size, tool, EXTRACT], rows.get((kind, size, tool, APPLY))
    name = f"**{tool}**" if tool.startswith(OURS) else tool
    share = 100 * making.diff_bytes / (size * 1e6)
    cells = [name, f"{making.diff_bytes:,}", f"{share:.3g}", f"{making.seconds:.2f}", f"{making.ratio:.2f}"]
    cells += ["-", "-"] if giving is None else [f"{giving.seconds:.2f}", f"{giving.ratio:.2f}"]
    return f"| {' | '.join([*cells, f'{max(making.peak_mb, giving.peak_mb if giving else 0):.0f}'])} |"


def claims(rows: Rows) -> list[Claim]:
    """What is asked of the rows that are there."""
    found = []
    smallest, compact = f"{OURS} smallest", f"{OURS} compact"
    for (kind, size, tool, verb), row in sorted(rows.items()):
        other = rows.get((kind, size, compact, verb))
        if tool == smallest and verb == EXTRACT and other is not None:
            found.append(
                Claim(f"{kind}, {size} MB: bytes of smallest / compact", row.diff_bytes / other.diff_bytes, 1.001)
            )
        if tool == smallest and (kind, size) == ("RL-like", 1000):
            if verb == EXTRACT:
                found.append(Claim("RL-like, 1000 MB: extract, smallest / reading and hashing", row.ratio, 4))
            elif other is not None:
                found.append(Claim("RL-like, 1000 MB: apply, smallest / compact", row.seconds / other.seconds, 2.5))
        if tool in (smallest, compact) and kind == SMALL and (JOINED, size, tool, verb) in rows:
            ratio = row.seconds / rows[JOINED, size, tool, verb].seconds
            found.append(Claim(f"18,000 tensors / 20: {verb}, {tool.split()[-1]}", ratio, 3))
        if kind == fine_tunes.KIND:
            found.append(Claim(f"{kind}, {size} MB each: one run / ten runs", row.ratio, 0.65))
        elif tool.startswith(OURS) and size == max(size for _, size, *_ in rows) and verb == EXTRACT:
            found.append(Claim(f"{kind}, {size} MB: {tool}, peak anonymous memory, MB", row.peak_mb, 400))
    return found


def verdict(found: Sequence[Claim]) -> str:
    """What is asked, as a table."""
    lines = [
        f"| {claim.what} | {claim.found:.3g} | {claim.most:g} | {'yes' if claim.holds else '**no**'} |"
        for claim in found
    ]
    return "\n".join(["| | found | at most | holds |", "|---|--:|--:|---|", *lines])
