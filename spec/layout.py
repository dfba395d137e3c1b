"""The files around the tensors, and safetensors: section 7 of format.md."""

import hashlib
import json
import struct
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from .manifest import fits, natural
from .words import DTYPES, Invalid, Tensor, check, short_digest, size_of

Header = dict[str, tuple[str, tuple[int, ...], int, int]]  # in order of place: dtype, shape, start, stop
ENTRY = {"dtype": str, "shape": [int], "data_offsets": (int, int)}


def read_json(text: bytes, rule: str) -> Any:
    """Return what JSON of RFC 8259 says that names nothing twice."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        check(len(dict(pairs)) == len(pairs), rule, "a safetensors header or index names something twice")
        return dict(pairs)

    try:
        return json.loads(text.decode(), object_pairs_hook=unique, parse_constant=natural)
    except (ValueError, RecursionError) as error:
        raise Invalid(rule, f"not a safetensors header or index: {error}") from error


def read_header(text: bytes, rule: str) -> Header:
    check(len(text) <= 100000000, rule, "a safetensors header too large")
    header = read_json(text, rule)
    try:
        json.dumps(header, ensure_ascii=False).encode()  # no lone surrogates
    except ValueError as error:
        raise Invalid(rule, f"not a safetensors header: {error}") from error
    check(fits(header, {"__metadata__?~": {str: str}}), rule, "not a safetensors header")
    header.pop("__metadata__", None)
    check(fits(header, {str: ENTRY}), rule, "not a safetensors header")
    end, result = 0, Header()
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        (start, stop), dtype, shape = entry["data_offsets"], entry["dtype"], entry["shape"]
        check(dtype in DTYPES and min(shape, default=0) >= 0 and len(shape) <= 64, rule, f"bad tensor {name!r}")
        check(start == end and stop == start + size_of(dtype, shape), rule, f"a hole or overlap before {name!r}")
        end, result[name] = stop, (dtype, tuple(shape), start, stop)
    return result


def check_header(header: Header, tensors: dict[str, Tensor]) -> None:
    same = {name: entry[:2] for name, entry in header.items()} == {name: t[:2] for name, t in tensors.items()}
    check(same, "L2", "the headers are of other tensors than the result's")


def headers_of(blob: bytes, layout: dict[str, Any]) -> list[tuple[bytes, Header]]:
    """Return each header of a blob, as it is and read; its tensors are called as those of the result."""
    headers, places = [], accumulate((size for _, size in layout["files"]), initial=0)
    for (name, _), (start, stop) in zip(layout["files"], pairwise(places), strict=True):
        folder = name[: name.rfind("/") + 1]  # a tensor of a file in a folder is called by that folder, too
        entries = read_header(blob[start:stop], "L2")
        headers.append((blob[start:stop], {folder + tensor: entry for tensor, entry in entries.items()}))
    return headers


def read_blob(blob: bytes, layout: dict[str, Any]) -> Header:
    """Return the entries of all headers of a blob."""
    size = sum(size for _, size in [*layout["files"], layout["index"] or ("", 0)])
    check(len(blob) == size and short_digest(blob) == layout["digest"], "L2", "not the headers described")
    entries = Header()
    for _, header in headers_of(blob, layout):
        check(entries.keys().isdisjoint(header), "L2", "a tensor in two files")
        entries |= header
    if layout["index"]:
        index = read_json(blob[size - layout["index"][1] :], "L6")
        known = fits(index, {"weight_map": {str: str}})
        known = known and {name for name, _ in layout["files"]}.issuperset(index["weight_map"].values())
        check(known, "L6", "an index that does not lead to the files of the layout")
    return entries


def check_files(blob: bytes, layout: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Check the SHA-256 of the files that a layout describes."""
    digests = [
        hashlib.sha256(struct.pack("<Q", len(text)) + text + b"".join(tensors[name].data for name in header))
        for text, header in headers_of(blob, layout)
    ]
    if layout["index"]:
        digests.append(hashlib.sha256(blob[len(blob) - layout["index"][1] :]))
    found = [digest.hexdigest() for digest in digests]
    check(layout.get("sha256", found) == found, "L7", "a file of another SHA-256 than recorded")


def load_safetensors(path: str) -> tuple[bytes, dict[str, Tensor]]:
    """Return the header of a file, and its tensors."""
    data = Path(path).read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    header = read_header(data[8:begin], "A1")
    end = max((entry[3] for entry in header.values()), default=0)
    check(begin + end == len(data), "A1", f"{path} is not of the size its header tells")
    tensors = {name: Tensor(t, shape, data[begin + i : begin + j]) for name, (t, shape, i, j) in header.items()}
    return data[8:begin], tensors


def save(path: str, tensors: dict[str, Tensor], header: bytes = b"") -> None:
    """Write one safetensors file, under a given header or under a plain one."""
    if not header:
        end, entries = 0, {}
        for name, (dtype, shape, data) in tensors.items():
            end, start = end + len(data), end
            entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": (start, end)}
        header = json.dumps(entries).encode()
    order = read_header(header, "L2")
    check_header(order, tensors)
    data = b"".join(tensors[name].data for name in order)
    Path(path).write_bytes(struct.pack("<Q", len(header)) + header + data)
