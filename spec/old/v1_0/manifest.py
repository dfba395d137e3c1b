# Kept as it was released with format 1.0; changed are this line and the imports of pages, which have a dot now.
"""The manifest: its JSON, its members and the rules of groups and names. Sections 3, 5 and 7 of format.md."""

import json
import re
from itertools import pairwise
from typing import Any

from .words import DTYPES, QUIET_NAN, Invalid, Unsupported, check, words_of

VALUES = {"exact": 0, "f32": 4, "f16": 2, "bf16": 2, "int8": 1}  # bytes of a value; 0: of a word
HEX16, HEX32, FILE = "[0-9a-f]{32}", "[0-9a-f]{64}", (str, int)  # patterns of types, see fits()
COUNTS = {"fingerprint": HEX32, "tensors": int, "entries": int, "bytes": int}
MANIFEST = {
    "base": COUNTS | {"name?": str, "revision?": str}, "result": COUNTS, "exact": bool, "requires": [str],
    "optional": [str], "chunks": [{"bytes": int, "digest": HEX32, "streams": [(str, str, int, int)]}],
    "groups": [{
        "dtype": str, "base~": str, "positions": str, "values": str, "names": [str], "shapes": [[int]],
        "resized": {str: [int]}, "ends": [int], "counts?": [int],
        "base_digests?": "[0-9a-f]*", "result_digests?": "[0-9a-f]*",
    }],
    "aliases": {str: str}, "removed": [str], "rename": [(str, str)], "metadata": {str: str}, "recipe": {str: str},
    "layout~": {
        "files": [FILE], "index~": FILE, "folder": bool, "stored": bool, "digest": HEX16, "sha256?": [HEX32],
    },
    "files": [{"name": str, "bytes": int, "digest": HEX16, "stored": bool}],
}  # fmt: skip


def fits(value: Any, pattern: Any) -> bool:
    """Say, as manifest.schema.json does, whether a value is of a type. `?` may be absent, `~` may be null."""
    if isinstance(pattern, type):
        return type(value) is pattern  # true is no integer
    if isinstance(pattern, str):
        return isinstance(value, str) and re.fullmatch(pattern, value) is not None
    if isinstance(pattern, list):
        return isinstance(value, list) and all(fits(item, pattern[0]) for item in value)
    if isinstance(pattern, tuple):
        return isinstance(value, list) and len(value) == len(pattern) and all(map(fits, value, pattern))
    if not isinstance(value, dict) or str in pattern:
        return isinstance(value, dict) and all(fits(member, pattern[str]) for member in value.values())
    for name, sub in pattern.items():
        member = value.get(name.rstrip("?~"), ...)
        if not (fits(member, sub) or (member is None and "~" in name) or (member is ... and "?" in name)):
            return False
    return True


def natural(digits: str) -> int:
    if not digits.isdigit() or len(digits) > 19 or int(digits) >= 2**63:
        raise ValueError(f"the number {digits[:20]}")
    return int(digits)


def check_groups(m: dict[str, Any]) -> None:
    used, removed = set(m["aliases"]), set(m["removed"])
    for g in m["groups"]:
        dtype, base, names, resized = g["dtype"], g["base"], g["names"], g["resized"]
        check(names == sorted(set(names)) and used.isdisjoint(names), "G1", "names are not sorted or not unique")
        used.update(names)
        check({dtype, base} <= {None, *DTYPES}, "G2", "unknown dtype")
        check(g["positions"] in ("gaps", "all", "classes") and g["values"] in VALUES, "G2", "unknown coding")
        check(("base_digests" in g) == (base is not None), "G2", "base_digests without base, or the reverse")
        many = {len(g[member]) for member in ("base_digests", "result_digests") if member in g}
        check(many <= {32 * len(names)} and len(g["shapes"]) == len(names) > 0, "G2", "not equally many, or none")
        check(base in (dtype, None) or {base, dtype} <= QUIET_NAN.keys(), "G4", f"{base} cannot become {dtype}")
        check(g["values"] == "exact" or dtype in QUIET_NAN, "G5", f"lossy values for {dtype}")
        shapes = dict(zip(names, g["shapes"], strict=True))
        good = (n in shapes and shapes[n] != old and len(shapes[n]) == len(old) > 0 for n, old in resized.items())
        check(not resized or (base and DTYPES[dtype][0] >= 8 and all(good)), "G6", "this cannot be resized")
        whole = "result_digests" in g and g["values"] == "exact"
        check(whole or not m["exact"], "G7", "an exact diff without result_digests, or with lossy values")
        if g["positions"] == "classes":
            right = g["values"] == "exact" and base and dtype in QUIET_NAN and "classes" in m["requires"]
            check(right and len(g.get("counts", [])) == len(names), "K1", "this cannot be coded in classes")
            spans = [b - a for a, b in pairwise([0, *g["ends"]])]
            check(max(spans, default=0) <= 16777216, "F8", "a span of classes too large")
        sizes = [*g["shapes"], *resized.values()]
        check(max(map(len, sizes), default=0) <= 64, "F8", "too many dimensions")
        words, ends = [words_of(dtype, shape) for shape in sizes], [0, *g["ends"]]
        line = sum(words[: len(names)])
        check(max([line, *words]) <= 2**62, "F8", "a tensor or line too large")
        check(ends == sorted(set(ends)) and ends[-1] == line, "G3", "the spans do not cut the line")
    check(used.isdisjoint(removed), "G1", "a name is in removed")
    check(set(m["aliases"]).isdisjoint(m["aliases"].values()), "A5", "an alias of an alias")
    check(all(len(name.encode()) <= 65535 for name in used | removed), "F8", "a name too long")


def check_file_names(m: dict[str, Any]) -> None:
    layout = m["layout"] or {"files": [], "index": None, "folder": True}
    places = [*layout["files"], *([layout["index"]] if layout["index"] else [])]
    check(layout["files"] or not m["layout"], "L2", "a layout without files")
    check(len(layout.get("sha256", places)) == len(places), "L2", "sha256 and files are not equally many")
    names = [file["name"] for file in m["files"]] + [name for name, _ in places]
    if not layout["folder"]:
        one = not layout["index"] and [name for name, _ in places] == [""]
        check(one, "L1", 'a layout without folder that is not one file ""')
        names.pop()
    for name in names:
        plain = re.fullmatch(r"(?!\.)[^/\\:\x00-\x1f\x7f]+", name) and len(name.encode()) <= 255
        check(plain, "L1", f"{name!r} is no plain file name")
    check(len({name.casefold() for name in names}) == len(names), "L1", "a file name twice")


def parse(text: bytes) -> dict[str, Any]:
    """Section 3: the manifest, if it is canonical, of known features and of the right types."""
    try:
        m = json.loads(text.decode(), parse_int=natural, parse_float=natural, parse_constant=natural)
        again = json.dumps(m, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
    except (ValueError, RecursionError) as error:
        raise Invalid("M1", f"not canonical JSON: {error}") from error
    check(isinstance(m, dict) and again == text, "M1", "not canonical JSON")
    check(fits(m, {"requires": [str]}), "M2", "requires")
    if unknown := set(m["requires"]) - {
        "classes",
        "pco",
        "zstd",
    }:  # before other members: a newer file is refused by name
        raise Unsupported("M3", f"the file requires {', '.join(sorted(unknown))}")
    for name, pattern in MANIFEST.items():
        check(fits(m, {name: pattern}), "M2", f"member {name} is missing or of a wrong type")
    for name in ("requires", "optional", "removed"):
        check(m[name] == sorted(set(m[name])), "M2", f"{name} is not sorted")
    found: dict[str, Any] = m
    return found
