"""The rows as tables, and the verdict."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.size.catalogue import BY_NAME
from benchmarks.size.contenders import OURS
from benchmarks.size.results import BOUND, Row

BEGIN = "<!-- from here to the end mark: written by make bench-size -->"
END = "<!-- end mark -->"


@dataclass(frozen=True)
class Limit:
    """What diffpack's best has to stay under on a pair."""

    pair: str
    most: float
    unit: str  # "%" of the tuned tensors' bytes, or "bits" a changed word


LIMITS = (Limit("minilm-f32", 29.9, "%"), Limit("minilm-bf16", 7.4, "%"), Limit("rl-1e-6", 6.6, "bits"))


def by_size(rows: list[Row]) -> list[Row]:
    """Sort the smallest first, what has no size last."""
    return sorted(rows, key=lambda row: (row.size < 0, row.size, row.tool))


def of(rows: list[Row], pair: str) -> list[Row]:
    return by_size([row for row in rows if row.pair == pair])


def ours(row: Row) -> bool:
    return row.tool.startswith(OURS)


def best(rows: list[Row], *, mine: bool) -> Row | None:
    """Give the smallest exact row, of diffpack or of the peers."""
    found = [row for row in rows if row.exact == "yes" and ours(row) == mine]
    return by_size(found)[0] if found else None


def cells(row: Row) -> list[str]:
    """Give a row as text: tool, bytes, %, bits a changed word, seconds, exact, version, note."""
    if row.size < 0:
        return [row.tool, "-", "-", "-", "-", "-", "-", row.version, row.note]
    times = ["-" if row.tool == BOUND else f"{seconds:.1f}" for seconds in (row.encode_s, row.decode_s)]
    return [
        row.tool, f"{row.size:,}", f"{row.percent:.2f}", f"{row.bits:.2f}", *times, row.exact, row.version, row.note,
    ]  # fmt: skip


HEAD = ["tool", "bytes", "% of tensors", "bits a changed word", "encode s", "decode s", "exact", "version", "note"]


def sections(rows: list[Row]) -> str:
    """Write one Markdown section a pair, in the catalogue's order."""
    lines: list[str] = []
    for pair in BY_NAME:
        found = of(rows, pair)
        if not found:
            continue
        first = found[0]
        lines += ["", f"## {pair}", "", f"{BY_NAME[pair].about}.", ""]
        share = 100 * first.changed / first.words
        size = f"{first.tensor_bytes / 1e6:.1f} MB of tensors"
        lines += [f"{size}, {first.words:,} words, of which {share:.2f} % change.", ""]
        lines += ["| " + " | ".join(HEAD) + " |", "|" + "---|" + "--:|" * 5 + "---|---|---|"]
        for row in found:
            shown = cells(row)
            if ours(row):
                shown[0] = f"**{shown[0]}**"
            elif row.tool == BOUND:
                shown[0] = f"*{shown[0]}*"
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in shown) + " |")
    machines = sorted({row.machine for row in rows})
    return "\n".join([*lines[1:], "", f"Measured on {'; '.join(machines)}."])


def terminal(rows: list[Row]) -> str:
    """Give all tables as aligned text."""
    lines = []
    for pair in BY_NAME:
        found = [cells(row) for row in of(rows, pair)]
        widths = [max(len(line[at]) for line in [HEAD, *found]) for at in range(len(HEAD))]
        if found:
            lines += ["", pair]
            for line in [HEAD, *found]:
                shown = [cell.rjust(width) for cell, width in zip(line, widths, strict=True)]
                lines.append("  ".join([line[0].ljust(widths[0]), *shown[1:-1], line[-1]]).rstrip())
    return "\n".join(lines)


def verdict(rows: list[Row]) -> tuple[list[str], bool]:
    """Say for each pair whether diffpack's best is exact and smaller than every exact peer, and under its limit."""
    lines, good = [], True
    for pair in BY_NAME:
        found = of(rows, pair)
        if not found:
            continue
        mine, peer = best(found, mine=True), best(found, mine=False)
        holds = mine is not None and (peer is None or mine.size < peer.size)
        left = f"{mine.tool} {mine.size:,}" if mine else "no exact diff"
        right = f"{peer.tool} {peer.size:,} bytes" if peer else "no exact peer"
        saved = f" ({100 * (1 - mine.size / peer.size):.1f} % smaller)" if mine and peer else ""
        lines.append(f"{'ok  ' if holds else 'MISS'} {pair:<15} {left} against {right}{saved}")
        good &= holds
    for limit in LIMITS:
        mine = best(of(rows, limit.pair), mine=True)
        if mine:
            value = mine.percent if limit.unit == "%" else mine.bits
            holds = value <= limit.most
            lines.append(f"{'ok  ' if holds else 'MISS'} {limit.pair:<15} {value:.2f} {limit.unit}, bound {limit.most}")
            good &= holds
    return lines, good
