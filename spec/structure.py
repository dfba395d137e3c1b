"""What an HDF5 file holds beside its tensors: rule L5, section 7 of format.md."""

import json
import re
from math import prod
from typing import Any

from .manifest import fits
from .words import Invalid, Tensor, check, short_digest

FILTERS = {1, 2, 3, 32000}  # deflate, shuffle, fletcher32, lzf
TYPE = r"(?:[<>|][biufc](1|2|4|8|16)|S([1-9]\d{0,8})u?|(bool))"  # of a fixed size, in bytes
VALUE = {"type": str, "shape~": [int], "data?": str, "strings?": [str]}
ATTRIBUTES = [{"name": str, "value": VALUE}]
ITEMS = {
    "group": {"path": str, "ordered": bool, "attributes": ATTRIBUTES},
    "tensor": {
        "path": str, "big_endian": bool, "chunks~": [int], "largest~": [int], "filters": [(int, [int])],
        "attributes": ATTRIBUTES,
    },
    "data": {"path": str, "value": VALUE, "attributes": ATTRIBUTES},
    "link": {"path": str, "target": str, "soft": bool},
}  # fmt: skip


def check_structure(structure: dict[str, Any] | None) -> None:
    """Check all but the names of the tensors, which need the result."""
    if structure is None or (content := structure["content"]) is None:
        return
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    check(short_digest(text) == structure["digest"], "L5", "a structure that is not what its digest says")
    check(fits(content, {"ordered": bool, "attributes": ATTRIBUTES, "items": [{"kind": str}]}), "L5", "no structure")
    kinds = dict[str, str]()
    described = list(content["attributes"])
    for item in content["items"]:
        check(item["kind"] in ITEMS and fits(item, ITEMS[item["kind"]]), "L5", f"no item: {str(item)[:80]}")
        check_item(item, kinds)
        kinds[item["path"]] = item["kind"]
        described += item.get("attributes", [])
    for attribute in described:
        check(attribute["name"] and "\0" not in attribute["name"], "L5", "a name no attribute can have")
        check_value(attribute["value"])


def check_item(item: dict[str, Any], kinds: dict[str, str]) -> None:
    path, kind = item["path"], item["kind"]
    group, slash, last = path.rpartition("/")
    plain = last not in {"", ".", ".."} and "\0" not in path and path not in kinds
    check(plain and (not slash or kinds.get(group) == "group"), "L5", f"a bad or second name, or no group: {path!r}")
    if kind == "link":
        target = item["target"]
        check(target and "\0" not in target and (item["soft"] or target in kinds), "L5", f"{path!r} leads to nothing")
    elif kind == "data":
        check_value(item["value"])
    elif kind == "tensor":
        chunks, largest, filters = item["chunks"], item["largest"], item["filters"]
        check(len(chunks or ()) <= 32 and len(largest or ()) <= 32, "L5", "too many dimensions")
        known = all(number in FILTERS and len(v) <= 8 and max(v, default=0) < 2**32 for number, v in filters)
        check(known and (chunks or (not filters and largest is None)), "L5", "unknown filters, or no chunks")
        check(chunks is None or (min(chunks, default=0) > 0 and prod(chunks) < 2**32), "L5", "bad chunks")


def check_value(value: dict[str, Any]) -> None:
    kind, shape, data, strings = value["type"], value["shape"], value.get("data"), value.get("strings")
    found = re.fullmatch(TYPE, kind)
    check(found or kind in {"ascii", "utf8"}, "L5", f"unknown type {kind!r}")
    if shape is None:
        good = data is None and strings is None
    elif len(shape) > 32:
        good = False
    elif found is None:
        good = data is None and strings is not None and len(strings) == prod(shape) and "\0" not in "".join(strings)
    else:
        digits = 2 * prod(shape) * (1 if found[3] else int(found[1] or found[2]))
        good = strings is None and data is not None and len(data) == digits and not re.search("[^0-9a-f]", data)
    check(good, "L5", f"a value that is not of its type {kind} and shape")


def check_tensors(structure: dict[str, Any] | None, result: dict[str, Tensor]) -> None:
    if structure is not None and structure["content"] is not None:
        tensors = {item["path"] for item in structure["content"]["items"] if item["kind"] == "tensor"}
        if tensors != result.keys():
            raise Invalid("L5", "a structure of other tensors than the result's")
