# Kept as it was released with format 1.0; changed are this line and the imports of pages, which have a dot now.
"""The files around the tensors, and safetensors: section 7 of format.md."""

import json
import struct
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from .manifest import fits
from .words import DTYPES, Invalid, Tensor, check, short_digest, size_of

Header = dict[str, tuple[str, tuple[int, ...], int, int]]  # in order of place: dtype, shape, start, stop
ENTRY = {"dtype": str, "shape": [int], "data_offsets": (int, int)}


def read_header(text: bytes, rule: str) -> Header:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        check(len(dict(pairs)) == len(pairs), rule, "a safetensors header names something twice")
        return dict(pairs)

    try:
        header = json.loads(text.decode(), object_pairs_hook=unique)
        json.dumps(header, ensure_ascii=False).encode()  # no lone surrogates
    except (ValueError, RecursionError) as error:
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


def read_blob(blob: bytes, layout: dict[str, Any]) -> Header:
    """Return the entries of all headers of a blob."""
    size = sum(size for _, size in [*layout["files"], layout["index"] or ("", 0)])
    check(len(blob) == size and short_digest(blob) == layout["digest"], "L2", "not the headers described")
    entries = Header()
    for start, stop in pairwise(accumulate((size for _, size in layout["files"]), initial=0)):
        header = read_header(blob[start:stop], "L2")
        check(entries.keys().isdisjoint(header), "L2", "a tensor in two files")
        entries |= header
    return entries


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
