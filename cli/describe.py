"""A diff in the words of `--json`, and those words as text: what `extract` and `inspect` share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .output import Report, listed, plural, safe, size

if TYPE_CHECKING:
    from diffpack import Diff
    from diffpack.format.manifest import ResultSummary

_MOST_RULES = 4  # rename rules a line of text lists

SUMMARY_KEYS = {
    "base.fingerprint": "the base's content hash, 64 hex digits",
    "base.tensors": "how many tensors the base has",
    "base.entries": "how many entries they have",
    "base.bytes": "bytes of their data",
    "base.name": "what people call the base, or null",
    "base.revision": "its revision, or null",
    "result.fingerprint": "the content hash applying must arrive at, or null if it is not recorded",
    "result.tensors": "how many tensors the result has",
    "result.entries": "how many entries they have",
    "result.bytes": "bytes of their data",
}
CHANGE_KEYS = {
    "rename[].old": "prefix of the base's tensor names ...",
    "rename[].new": "... and what stands for it in the result",
    "copies[].name": "a tensor that is compared with a base tensor of another name ...",
    "copies[].source": "... this one, by its name after renaming",
    "slices[].name": "a tensor that is compared with slices of base tensors put together ...",
    "slices[].sources": "... those of these, by their names after renaming",
    "new": "names of tensors the base lacks, or has as something that cannot be compared",
    "removed": "names of the base's tensors (after renaming) the result lacks",
    "resized[].name": "a tensor of another shape than the base's",
    "resized[].base_shape": "its shape in the base",
    "resized[].shape": "its shape in the result",
    "retyped[].name": "a tensor of another dtype than the base's",
    "retyped[].base_dtype": "its dtype in the base",
    "retyped[].dtype": "its dtype in the result",
    "aliases[].name": "a tensor that is stored as equal to ...",
    "aliases[].target": "... this one (tied weights)",
}


def summaries(diff: Diff) -> Report:
    """What a diff says of its base and its result."""
    manifest = diff.manifest
    base = {"name": manifest.base.name, "revision": manifest.base.revision}
    return {"base": _summary(manifest.base) | base, "result": _summary(manifest.result)}


def _summary(summary: ResultSummary) -> Report:
    return {
        "fingerprint": summary.fingerprint,
        "tensors": summary.tensors,
        "entries": summary.entries,
        "bytes": summary.bytes,
    }


def changes(diff: Diff) -> Report:
    """What changed but values: names, shapes, dtypes, tensors that came and went."""
    changed: Report = {
        "rename": [{"old": old, "new": new} for old, new in diff.manifest.rename],
        "copies": [{"name": name, "source": source} for name, source in sorted((diff.manifest.copies or {}).items())],
        "slices": [
            {"name": name, "sources": assembly.sources}
            for name, assembly in sorted((diff.manifest.slices or {}).items())
        ],
        "new": [],
        "removed": list(diff.manifest.removed),
        "resized": [],
        "retyped": [],
        "aliases": [{"name": name, "target": target} for name, target in diff.manifest.aliases.items()],
    }
    for name, record in diff.items():
        if record.base is None:
            changed["new"].append(name)
            continue
        if record.base.shape != record.shape:
            shapes = {"base_shape": list(record.base.shape), "shape": list(record.shape)}
            changed["resized"].append({"name": name, **shapes})
        if record.base.dtype != record.info.dtype:
            changed["retyped"].append({"name": name, "base_dtype": record.base.dtype.name, "dtype": record.dtype})
    return changed


def change_rows(report: Report) -> list[tuple[str, str]]:
    """`changes` as labelled lines; empty ones where there is nothing to tell."""
    rules = [f"{safe(rule['old']) + '*'} -> {safe(rule['new']) + '*'}" for rule in report["rename"]]
    more = f" and {len(rules) - _MOST_RULES:,} more rules" if len(rules) > _MOST_RULES else ""
    renamed = ", ".join(rules[:_MOST_RULES]) + more
    resized = [f"{item['name']} {item['base_shape']} -> {item['shape']}" for item in report["resized"]]
    retyped = [f"{item['name']} {item['base_dtype']} -> {item['dtype']}" for item in report["retyped"]]
    aliases = [f"{item['name']} = {item['target']}" for item in report["aliases"]]
    lists = {"new": report["new"], "removed": report["removed"]}
    lists |= {"resized": resized, "retyped": retyped, "tied": aliases}
    copies = [f"{item['name']} from {item['source']}" for item in report["copies"]]
    near = ("near", listed(copies) if copies else "")
    slices = [f"{item['name']} from {_several(item['sources'])}" for item in report["slices"]]
    made = ("slices", listed(slices) if slices else "")
    rest = [(label, listed(names) if names else "") for label, names in lists.items()]
    return [("renamed", renamed), near, made, *rest]


def _several(sources: list[str]) -> str:
    return sources[0] if len(sources) == 1 else f"{sources[0]} and {len(sources) - 1} more"


def sizes(report: Report) -> str:
    """The size of a diff: of what weights take, and of side files where there are any."""
    beside = f" and {size(report['side_file_bytes'])} of side files" if report["side_file_bytes"] else ""
    return size(report["weight_bytes"]) + beside


def summary_text(summary: Report) -> str:
    """A base or result in one line."""
    name = safe(summary.get("name") or "")
    revision = f"@{safe(summary['revision'])}" if summary.get("revision") else ""
    counts = f"{plural(summary['tensors'], 'tensor')}, {plural(summary['entries'], 'entry')}, {size(summary['bytes'])}"
    return f"{name}{revision}{', ' if name or revision else ''}{counts}"


_FIRST = ("select", "values", "merged")  # what a recipe begins with; the rest follows in order of the alphabet


def recipe_text(recipe: dict[str, str]) -> str:
    """The recipe in a few words: `density 0.005, values f16`."""
    order = [key for key in _FIRST if key in recipe] + sorted(set(recipe) - set(_FIRST))
    return ", ".join(safe(recipe[key]) if key == "select" else f"{safe(key)} {safe(recipe[key])}" for key in order)
