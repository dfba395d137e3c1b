# Kept as it was released with format 1.0; changed are this line and the imports of pages, which have a dot now.
"""Read and apply .dpk files: format.md said a second time, as code. It shares nothing with the diffpack library.

    python spec/reader.py FILE.dpk [BASE.safetensors OUT.safetensors]

This page is the way of the data (sections 2, 5 and 6); beside it stand words.py (8), manifest.py (3, rules of 5
and 7), streams.py (4), classes.py (5, Classes) and layout.py (7). What refuses a file names the rule it breaks:
Invalid("F5", ...). To keep the pages short, files and results are held in memory, and each chunk is decoded
twice: once to check, once to apply.
"""

import math
import struct
import sys
from collections.abc import Iterator
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from blake3 import blake3
from .classes import check_classes, steps_of
from .layout import check_header, load_safetensors, read_blob, save
from .manifest import VALUES, check_file_names, check_groups, parse
from .streams import decode, only, unzstd
from .words import (
    DTYPES,
    Array,
    Invalid,
    Tensor,
    Unsupported,
    check,
    fingerprint,
    narrow,
    ordered,
    positions_of,
    short_digest,
    widen,
    words_of,
)

Change = tuple[Array, Array]  # positions in a line, and what to add there: steps (exact) or floats (lossy)


class Diff(NamedTuple):
    """A file that keeps every rule which can be checked without its base."""

    manifest: dict[str, Any]
    chunks: memoryview
    blob: bytes | None  # headers and index of the tuned checkpoint, where stored
    files: dict[str, bytes]  # side files, where stored


def read_manifest(data: bytes) -> tuple[dict[str, Any], int]:
    """Section 2: return the manifest, and where the chunks end."""
    framed = len(data) >= 88 and data[:8] == b"\x89DPK\r\n\x1a\n" == data[:-9:-1]
    check(framed, "F1", "no diffpack file, or cut short")
    major, _minor, flags = struct.unpack("<HHI", data[8:16])
    if major != 1:
        raise Unsupported("F2", f"major version {major}")
    end, size, decoded, codec, reserved = struct.unpack("<QQQII", data[-72:-40])
    check(flags == reserved == 0, "F3", "flags or reserved field are not 0")
    check(end + size + 72 == len(data), "F4", "the manifest does not end where the trailer begins")
    check(decoded <= 268435456, "F8", "manifest too large")
    text = data[end:-72]
    check(blake3(data[:16] + text + data[-72:-40]).digest() == data[-40:-8], "F5", "wrong digest of the manifest")
    check(codec == 1 or (codec == 0 and size == decoded), "F6", "unknown codec or wrong size of the manifest")
    text = unzstd(text, decoded, "F6") if codec else text
    return parse(text), end


def read_group(g: dict[str, Any], chunks: Iterator[list[Array]], line: Array | None = None) -> Iterator[Change]:
    """Section 5: yield what each span of a group changes; `line` is its reference."""
    kind, gapped = g["values"], g["positions"] == "gaps"
    width = VALUES[kind] or DTYPES[g["dtype"]][1]
    if kind == "int8":
        scales = only(next(chunks), "u32", "V4").view("<f4")
        check(len(scales) == len(g["names"]), "V4", "not one scale a record")
        check((np.isfinite(scales) & (scales >= 0)).all(), "V4", "a scale that is negative or not finite")
        ends = list(accumulate(words_of(g["dtype"], shape) for shape in g["shapes"]))
    for start, stop in pairwise([0, *g["ends"]]):
        streams = next(chunks)
        if g["positions"] == "classes":  # without the base, only the form can be checked
            check_classes(streams, width)
            if line is not None:
                steps = steps_of(streams, line[start:stop], g["dtype"])
                yield np.flatnonzero(steps) + start, steps[steps != 0]
            continue
        if gapped:
            kinds, counts = [stream.dtype.kind for stream in streams], {len(stream) for stream in streams}
            check(len(kinds) == 2 and kinds[0] == "u" and len(counts) == 1, "P1", "a span is not gaps and values")
            positions = positions_of(streams[0], start, stop)
        else:
            check(len(streams) == 1 and len(streams[0]) == stop - start, "P2", "not one value a word of the span")
            positions = np.arange(start, stop)
        values = streams[-1]
        check(values.dtype == f"<i{width}", "V1", f"{kind} values of dtype {values.dtype}")
        check(kind != "int8" or (values != -128).all(), "V1", "the value -128")
        check(kind != "exact" or not gapped or values.all(), "V2", "a step of 0")
        if kind == "int8":
            with np.errstate(over="ignore"):
                values = values.astype("<f4") * scales[np.searchsorted(ends, positions, side="right")]
        elif kind != "exact":
            values = widen(ordered(values), kind.upper())
        check(kind == "exact" or np.isfinite(values).all(), "V3", "a value that is not finite")
        yield positions, values


def read(data: bytes) -> Diff:
    """Check all that can be checked without the base."""
    m, end = read_manifest(data)
    check(len(m["chunks"]) <= 16777216, "F8", "too many chunks")
    filled = 16 + sum(chunk["bytes"] for chunk in m["chunks"]) == end
    check(filled, "F7", "the chunks do not fill the space before the manifest")
    check_groups(m)
    check_file_names(m)
    layout, blob, files = m["layout"] or {"stored": False}, None, dict[str, bytes]()
    uses = sum(len(g["ends"]) + (g["values"] == "int8") for g in m["groups"])
    uses += layout["stored"] + sum(file["stored"] for file in m["files"])
    check(uses == len(m["chunks"]), "C6", f"{len(m['chunks'])} chunks where {uses} are used")
    chunks = decode(body := memoryview(data)[16:end], m)
    for g in m["groups"]:
        for _ in read_group(g, chunks):
            pass  # checked, and forgotten: small chunks may hold large arrays
    if layout["stored"]:
        blob = only(next(chunks), "u8", "L2").tobytes()
        read_blob(blob, layout)
    for file in (file for file in m["files"] if file["stored"]):
        content = files[file["name"]] = only(next(chunks), "u8", "L3").tobytes()
        same = len(content) == file["bytes"] and short_digest(content) == file["digest"]
        check(same, "L3", f"another size or digest of {file['name']!r}")
    return Diff(m, body, blob, files)


def resize(words: Array, old: list[int], new: list[int]) -> Array:
    result: Array = np.zeros(math.prod(new), words.dtype)
    if math.prod(map(min, old, new)):
        source = target = np.zeros(1, np.int64)
        for a, b in zip(old, new, strict=True):
            both = np.arange(min(a, b))
            source, target = (source[:, None] * a + both).ravel(), (target[:, None] * b + both).ravel()
        result[target] = words[source]
    return result


def reference(g: dict[str, Any], name: str, shape: list[int], tensors: dict[str, Tensor]) -> Array:
    dtype, base, old = g["dtype"], g["base"], g["resized"].get(name, shape)
    if base is None:
        return np.zeros(words_of(dtype, shape), f"<i{DTYPES[dtype][1]}")
    there = name in tensors and tensors[name][:2] == (base, tuple(old))
    check(there, "A4", f"the base has no tensor {name!r} of dtype {base} and shape {old}")
    words: Array = np.frombuffer(tensors[name].data, f"<i{DTYPES[base][1]}")
    words = narrow(widen(words, base), dtype) if base != dtype else words
    pair = [2] if dtype == "C64" else []  # two words an entry: one dimension more
    return resize(words, old + pair, shape + pair) if old != shape else words


def change(words: Array, values: Array, dtype: str, exact: bool) -> Array:
    if exact:
        return ordered(ordered(words) + values) if DTYPES[dtype][2] else words + values
    floats = widen(words, dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        return narrow(floats + values.astype(floats.dtype), dtype)


def apply(diff: Diff, base: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the result of applying a diff that read() returned."""
    m, tensors = diff.manifest, dict[str, Tensor]()
    check(fingerprint(base) == m["base"]["fingerprint"], "A1", "the diff was made from another base")
    for name, tensor in base.items():
        old, new = next((pair for pair in m["rename"] if name.startswith(pair[0])), ("", ""))
        check(new + name[len(old) :] not in tensors, "A2", f"{name!r} is renamed to another tensor's name")
        tensors[new + name[len(old) :]] = tensor
    for name in m["removed"]:
        check(tensors.pop(name, None), "A3", f"removed tensor {name!r} is not in the base")
    chunks = decode(diff.chunks, m)
    for g in m["groups"]:
        there = [name for name in g["names"] if name in tensors]  # for what is not there, see reference()
        if g["base"] is not None and len(there) == len(g["names"]):
            digests = "".join(short_digest(tensors[name].data) for name in there)
            check(digests == g["base_digests"], "A1", "wrong digest of a base tensor")
        records = list(zip(g["names"], g["shapes"], strict=True))
        try:  # with no base, a few bytes can ask for any size
            words = [reference(g, name, shape, tensors) for name, shape in records]
            line = np.concatenate([np.zeros(0, f"<i{DTYPES[g['dtype']][1]}"), *words])
        except (MemoryError, ValueError) as error:
            raise Invalid("F8", f"too large for this machine: {error}") from error
        for positions, values in read_group(g, chunks, line):
            line[positions] = change(line[positions], values, g["dtype"], g["values"] == "exact")
        stops = list(accumulate(map(len, words), initial=0))
        for (name, shape), (start, stop) in zip(records, pairwise(stops), strict=True):
            tensors[name] = Tensor(g["dtype"], tuple(shape), line[start:stop].tobytes())
        digests = "".join(short_digest(tensors[name].data) for name in g["names"])
        check(digests == g.get("result_digests", digests), "A6", "wrong digest of a result tensor")
    for name, target in m["aliases"].items():
        check(target in tensors, "A5", f"{name!r} is an alias of nothing")
        tensors[name] = tensors[target]
    check(fingerprint(tensors) == m["result"]["fingerprint"], "A6", "the result is not the one described")
    if diff.blob is not None:
        check_header(read_blob(diff.blob, m["layout"]), tensors)
    return tensors


def main(file: str, base: str = "", out: str = "") -> None:
    diff = read(Path(file).read_bytes())
    m, layout = diff.manifest, diff.manifest["layout"]
    for name in ("base", "result"):
        about = m[name]
        print(f"{name}: {about['tensors']} tensors, {about['bytes']} bytes, fingerprint {about['fingerprint']}")
    records = sum(len(g["names"]) for g in m["groups"])
    print(f"{'exact' if m['exact'] else 'lossy'}; {records} records, {len(m['chunks'])} chunks; keeps every rule")
    if out:
        header, tensors = load_safetensors(base)
        result = apply(diff, tensors)
        one = layout and not layout["folder"]  # one file, that can be given back byte for byte
        header = header if diff.blob is None else diff.blob
        if one:
            read_blob(header, layout)
        save(out, result, header if one else b"")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Invalid as invalid:
        sys.exit(f"invalid: {invalid}")
