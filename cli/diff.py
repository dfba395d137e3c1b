"""`diffpack diff`: how two diffs of one base differ."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .options import DiffPath, Session, global_options, opened
from .output import Report, emit, emit_json, listed, percent, plural, safe, table
from .progress import watched
from .written import needed_base, read_diffs

if TYPE_CHECKING:
    from diffpack.algebra.compare import Comparison, Overlap

_OVERLAP = {
    "first": "entries the first diff changes",
    "second": "entries the second diff changes",
    "both": "entries both change",
    "jaccard": "both / entries any of them changes",
    "sign_agreement": "of both, the share changed in one direction; null if there is none",
    "cosine": "cosine between the changes; null where only exact steps are known (give --base)",
    "norms": "their L2 norms, or null",
}
_KNOWN = {
    "known_share": "of the float entries that any of them changes, the share in tensors whose norms are known; or null",
    "known_cosine": "cosine of those tensors alone, or null",
    "known_norms": "their norms alone, or null",
}
KEYS = {
    "first": "path of the first diff",
    "second": "path of the second diff",
    **{f"total.{key}": meaning for key, meaning in {**_OVERLAP, **_KNOWN}.items()},
    "tensors[].name": "a tensor any of them stores something of",
    **{f"tensors[].{key}": f"there: {meaning}" for key, meaning in _OVERLAP.items()},
    "mismatched": "names of tensors the diffs give different dtypes or shapes; they are in no count",
}
"""What `--json` prints."""


@click.command("diff")
@click.argument("first", type=DiffPath(), metavar="DIFF")
@click.argument("second", type=DiffPath(), metavar="DIFF")
@needed_base
@click.option("--tensors", is_flag=True, help="Also list every tensor.")
@global_options
@click.pass_obj
def command(session: Session, first: str, second: str, base: str | None, tensors: bool) -> None:
    """Show how two diffs of one base differ: where both change something, in which direction, how alike.

    Exact diffs tell norms and cosines only with --base. One DIFF may be - for standard input.
    """
    one, two = read_diffs((first, second))
    import diffpack

    with watched(session, "comparing"):
        report = describe(diffpack.compare(one, two, opened(session, base), threads=session.threads))
    if session.json:
        emit_json(report)
    else:
        emit(as_text(report, tensors, base is not None))


def describe(compared: Comparison) -> Report:
    """What was found, as `--json` prints it."""
    return {
        "first": compared.first.name,
        "second": compared.second.name,
        "total": {**_overlap(compared.total), **_known(compared)},
        "tensors": [{"name": item.name, **_overlap(item.overlap)} for item in compared.tensors if item.overlap],
        "mismatched": list(compared.mismatched),
    }


def _overlap(overlap: Overlap) -> Report:
    return {
        "first": overlap.first,
        "second": overlap.second,
        "both": overlap.both,
        "jaccard": overlap.jaccard,
        "sign_agreement": overlap.sign_agreement,
        "cosine": overlap.cosine,
        "norms": None if overlap.norms is None else list(overlap.norms),
    }


def _known(compared: Comparison) -> Report:
    part = _overlap(compared.known)
    return {"known_share": compared.known_share, "known_cosine": part["cosine"], "known_norms": part["norms"]}


_HEAD = ("", "first", "second", "both", "jaccard", "same sign", "cosine", "norms")


def as_text(report: Report, tensors: bool, based: bool) -> str:
    """The same for people."""
    rows = [_row("all tensors", report["total"])]
    if tensors:
        rows += [_row(safe(item["name"]), item) for item in report["tensors"]]
    lines = [f"first   {safe(report['first'])}", f"second  {safe(report['second'])}", "", *table(_HEAD, rows)]
    if report["mismatched"]:
        lines.append(f"not compared, of different dtype or shape: {listed(report['mismatched'])}")
    if report["total"]["norms"] is None and report["total"]["known_share"] is not None:
        lines.append(_partly(report["total"], based))
    return "\n".join(lines)


def _partly(total: Report, based: bool) -> str:
    """What is known of norms and cosine, and why it is not all."""
    if not total["known_share"]:
        why = "changes are not finite" if based else f"{plural(total['both'], 'entry')} in exact steps"
        return f"norms and cosine are not told: {why}" if based else f"norms and cosine need --base: {why}"
    share = percent(total["known_share"])
    rest = "the others have changes that are not finite" if based else "the others need --base"
    cosine, norms = _cosine(total["known_cosine"]), _norms(total["known_norms"])
    return (
        f"of the tensors whose floats are known, {share} of the changed entries: cosine {cosine}, norms {norms}; {rest}"
    )


def _cosine(cosine: float | None) -> str:
    return "-" if cosine is None else f"{cosine:.4f}"


def _norms(norms: list[float] | None) -> str:
    return "-" if norms is None else ", ".join(f"{norm:.4g}" for norm in norms)


def _row(name: str, item: Report) -> list[str]:
    agreement = "-" if item["sign_agreement"] is None else percent(item["sign_agreement"])
    cosine, norms = _cosine(item["cosine"]), _norms(item["norms"])
    counts = [f"{item[key]:,}" for key in ("first", "second", "both")]
    return [name, *counts, f"{item['jaccard']:.4f}", agreement, cosine, norms]
