"""Read and apply .dpk files: format.md said a second time, as code. It shares nothing with the diffpack library.

    python spec/reader.py FILE.dpk [BASE.safetensors OUT.safetensors]

What refuses a file names the rule it breaks: Invalid("F5", ...). To keep the page short, files and results are
held in memory, and each chunk is decoded twice: once to check, once to apply.
"""

import json
import math
import re
import struct
import sys
from collections.abc import Iterable, Iterator
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import zstandard
from blake3 import blake3

Array = npt.NDArray[Any]
Change = tuple[Array, Array]  # positions in a line, and what to add there: steps (exact) or floats (lossy)
STREAMS = {f"{kind}{8 * size}": np.dtype(f"<{kind}{size}") for kind in "ui" for size in (1, 2, 4, 8)}
QUIET_NAN = {"F64": 0x7FF8 << 48, "F32": 0x7FC0 << 16, "F16": 0x7E00, "BF16": 0x7FC0}
WIDTHS = {  # section 8: bits of an entry, bytes of a word, ordered as float
    (8, 1, False): "BOOL U8 I8 F8_E8M0", (8, 1, True): "F8_E4M3 F8_E5M2 F8_E4M3FNUZ F8_E5M2FNUZ",
    (16, 2, False): "U16 I16", (32, 4, False): "U32 I32", (64, 8, False): "U64 I64", (16, 2, True): "F16 BF16",
    (32, 4, True): "F32", (64, 8, True): "F64", (64, 4, True): "C64",
    (4, 1, False): "F4", (6, 1, False): "F6_E2M3 F6_E3M2",
}  # fmt: skip
DTYPES = {name: width for width, names in WIDTHS.items() for name in names.split()}
VALUES = {"exact": 0, "f32": 4, "f16": 2, "bf16": 2, "int8": 1}  # bytes of a value; 0: of a word
HEX16, HEX32, FILE = "[0-9a-f]{32}", "[0-9a-f]{64}", (str, int)  # patterns of types, see fits()
COUNTS = {"fingerprint": HEX32, "tensors": int, "entries": int, "bytes": int}
MANIFEST = {
    "base": COUNTS | {"name?": str, "revision?": str}, "result": COUNTS, "exact": bool, "requires": [str],
    "optional": [str], "chunks": [{"bytes": int, "digest": HEX32, "streams": [(str, str, int, int)]}],
    "groups": [{
        "dtype": str, "base~": str, "positions": str, "values": str, "names": [str], "shapes": [[int]],
        "resized": {str: [int]}, "ends": [int], "base_digests?": "[0-9a-f]*", "result_digests?": "[0-9a-f]*",
    }],
    "aliases": {str: str}, "removed": [str], "rename": [(str, str)], "metadata": {str: str}, "recipe": {str: str},
    "layout~": {
        "files": [FILE], "index~": FILE, "folder": bool, "stored": bool, "digest": HEX16, "sha256?": [HEX32],
    },
    "files": [{"name": str, "bytes": int, "digest": HEX16, "stored": bool}],
}  # fmt: skip


class Invalid(Exception):
    """A file breaks the rule `rule` of format.md."""

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(f"[{rule}] {message}")
        self.rule = rule


class Unsupported(Invalid):
    """A file needs a newer reader: its major version (F2) or a feature it requires (M3) is not known here."""


class Tensor(NamedTuple):
    """The name of a tensor's dtype, its shape, and its little-endian bytes."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


class Diff(NamedTuple):
    """A file that keeps every rule which can be checked without its base."""

    manifest: dict[str, Any]
    chunks: memoryview
    blob: bytes | None  # headers and index of the tuned checkpoint, where stored
    files: dict[str, bytes]  # side files, where stored


def check(ok: object, rule: str, message: str) -> None:
    if not ok:
        raise Invalid(rule, message)


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


def read_manifest(data: bytes) -> tuple[dict[str, Any], int]:
    """Sections 2 and 3: return the manifest, and where the chunks end."""
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
    try:
        m = json.loads(text.decode(), parse_int=natural, parse_float=natural, parse_constant=natural)
        again = json.dumps(m, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
    except (ValueError, RecursionError) as error:
        raise Invalid("M1", f"not canonical JSON: {error}") from error
    check(isinstance(m, dict) and again == text, "M1", "not canonical JSON")
    check(fits(m, {"requires": [str]}), "M2", "requires")
    if unknown := set(m["requires"]) - {"pco", "zstd"}:  # before other members: a newer file is refused by name
        raise Unsupported("M3", f"the file requires {', '.join(sorted(unknown))}")
    for name, pattern in MANIFEST.items():
        check(fits(m, {name: pattern}), "M2", f"member {name} is missing or of a wrong type")
    for name in ("requires", "optional", "removed"):
        check(m[name] == sorted(set(m[name])), "M2", f"{name} is not sorted")
    return m, end


def unzstd(stored: bytes | memoryview, size: int, rule: str) -> bytes:
    try:
        frame = zstandard.get_frame_parameters(stored)  # first: the decoder takes what memory the frame asks for
        check(frame.content_size == size and frame.dict_id == 0, rule, "a zstd frame of another size")
        return zstandard.ZstdDecompressor().decompress(stored, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise Invalid(rule, f"not one zstd frame: {error}") from error


def unpco(stored: bytes, numbers: Array) -> Array:
    from pcodec.standalone import simple_decompress_into

    try:
        progress = simple_decompress_into(stored, numbers)
    except RuntimeError as error:
        raise Invalid("C4", f"no pco stream: {error}") from error
    check(progress.finished and progress.n_processed == len(numbers), "C4", "a pco stream of another count")
    try:  # pcodec does not say how many bytes it used, but fails where the last one (an end mark) is missing
        simple_decompress_into(stored[:-1], np.empty_like(numbers))
    except RuntimeError:
        return numbers
    raise Invalid("C4", "bytes after a pco stream")


def decode(data: memoryview, m: dict[str, Any]) -> Iterator[list[Array]]:
    """Section 4: yield the streams of each chunk."""
    for chunk in m["chunks"]:
        body, data, streams = data[: chunk["bytes"]], data[chunk["bytes"] :], []
        check(len(chunk["streams"]) <= 16, "F8", "too many streams in a chunk")
        check(sum(stream[3] for stream in chunk["streams"]) == len(body), "C1", "streams do not fill their chunk")
        check(blake3(body).hexdigest() == chunk["digest"], "C2", "wrong digest of a chunk")
        for codec, dtype, count, size in chunk["streams"]:
            check(dtype in STREAMS and codec in ("raw", "zstd", "pco"), "C3", f"unknown stream {codec} {dtype}")
            check(codec in ("raw", *m["requires"]), "M3", f"codec {codec} is not in requires")
            stored, body, width = body[:size], body[size:], STREAMS[dtype].itemsize
            check(count * width <= 134217728 and size <= 268435456, "F8", "stream too large")
            check(count or (codec == "raw" and size == 0), "C5", "an empty stream is not raw, or has bytes")
            if codec == "raw":
                check(size == count * width, "C4", "a raw stream of another size")
                streams.append(np.frombuffer(stored, STREAMS[dtype]))
            elif codec == "pco":
                streams.append(unpco(bytes(stored), np.empty(count, STREAMS[dtype])))
            else:
                planes = np.frombuffer(unzstd(stored, count * width, "C4"), np.uint8).reshape(width, count)
                numbers = planes.T.copy().view(f"<u{width}").ravel()
                streams.append((numbers >> 1 ^ -(numbers & 1)).view(f"<i{width}") if dtype[0] == "i" else numbers)
        yield streams


def only(streams: list[Array], dtype: str, rule: str) -> Array:
    check([s.dtype for s in streams] == [STREAMS[dtype]], rule, f"a chunk is not one {dtype} stream")
    return streams[0]


def size_of(dtype: str, shape: Iterable[int]) -> int:
    return -(-math.prod(shape) * DTYPES[dtype][0] // 8)


def words_of(dtype: str, shape: Iterable[int]) -> int:
    return size_of(dtype, shape) // DTYPES[dtype][1]


def check_groups(m: dict[str, Any]) -> None:
    used, removed = set(m["aliases"]), set(m["removed"])
    for g in m["groups"]:
        dtype, base, names, resized = g["dtype"], g["base"], g["names"], g["resized"]
        check(names == sorted(set(names)) and used.isdisjoint(names), "G1", "names are not sorted or not unique")
        used.update(names)
        check({dtype, base} <= {None, *DTYPES}, "G2", "unknown dtype")
        check(g["positions"] in ("gaps", "all") and g["values"] in VALUES, "G2", "unknown coding")
        check(("base_digests" in g) == (base is not None), "G2", "base_digests without base, or the reverse")
        many = {len(g[member]) for member in ("base_digests", "result_digests") if member in g}
        check(many <= {32 * len(names)} and len(g["shapes"]) == len(names) > 0, "G2", "not equally many, or none")
        check(base in (dtype, None) or {base, dtype} <= QUIET_NAN.keys(), "G4", f"{base} cannot become {dtype}")
        check(g["values"] == "exact" or dtype in QUIET_NAN, "G5", f"lossy values for {dtype}")
        shapes = dict(zip(names, g["shapes"], strict=True))
        good = (n in shapes and shapes[n] != old and len(shapes[n]) == len(old) > 0 for n, old in resized.items())
        check(not resized or (base and DTYPES[dtype][0] >= 8 and all(good)), "G6", "this cannot be resized")
        check("result_digests" in g or not m["exact"], "G7", "an exact diff without result_digests")
        sizes = [*g["shapes"], *resized.values()]
        check(max(map(len, sizes), default=0) <= 64, "F8", "too many dimensions")
        words, ends = [words_of(dtype, shape) for shape in sizes], [0, *g["ends"]]
        line = sum(words[: len(names)])
        check(max([line, *words]) <= 2**62, "F8", "a tensor or line too large")
        check(ends == sorted(set(ends)) and ends[-1] == line, "G3", "the spans do not cut the line")
    check(used.isdisjoint(removed), "G1", "a name is in removed")
    check(set(m["aliases"]).isdisjoint(m["aliases"].values()), "A5", "an alias of an alias")
    check(all(len(name.encode()) <= 65535 for name in used | removed), "F8", "a name too long")


def read_group(g: dict[str, Any], chunks: Iterator[list[Array]]) -> Iterator[Change]:
    """Section 5: yield what each span of a group changes."""
    kind, gapped = g["values"], g["positions"] == "gaps"
    width = VALUES[kind] or DTYPES[g["dtype"]][1]
    if kind == "int8":
        scales = only(next(chunks), "u32", "V4").view("<f4")
        check(len(scales) == len(g["names"]), "V4", "not one scale a record")
        check((np.isfinite(scales) & (scales >= 0)).all(), "V4", "a scale that is negative or not finite")
        ends = list(accumulate(words_of(g["dtype"], shape) for shape in g["shapes"]))
    for start, stop in pairwise([0, *g["ends"]]):
        streams = next(chunks)
        if gapped:
            kinds, counts = [stream.dtype.kind for stream in streams], {len(stream) for stream in streams}
            check(len(kinds) == 2 and kinds[0] == "u" and len(counts) == 1, "P1", "a span is not gaps and values")
            gaps = streams[0].astype("<u8")
            total = (int((gaps >> 32).sum()) << 32) + int((gaps & 0xFFFFFFFF).sum())  # in halves: it may pass 2^64
            check(start + total + len(gaps) <= stop, "P1", "a position outside its span")
            positions = np.cumsum(gaps + 1).astype("<i8") + (start - 1)
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


def check_file_names(m: dict[str, Any]) -> None:
    layout = m["layout"] or {"files": [], "index": None, "folder": True}
    places = [*layout["files"], *([layout["index"]] if layout["index"] else [])]
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


# Sections 6 and 8


def ordered(words: Array) -> Array:
    """Map float words to ordered integers, or back: the map is its own inverse."""
    return np.where(words < 0, words ^ np.iinfo(words.dtype).max, words)


def widen(words: Array, dtype: str) -> Array:
    """Return the float32 (for F64: float64) of each word."""
    if dtype == "BF16":
        return (words.view("<u2").astype("<u4") << 16).view("<f4")
    with np.errstate(invalid="ignore"):  # a signalling NaN
        return words.view(f"<f{words.itemsize}").astype("<f8" if dtype == "F64" else "<f4")


def narrow(floats: Array, dtype: str) -> Array:
    """Round once, to nearest, ties to even; every NaN becomes the quiet one."""
    nan, width = np.isnan(floats), DTYPES[dtype][1]
    with np.errstate(all="ignore"):
        if floats.itemsize == 8 and width == 2:
            # Go through F32 towards zero, and set the last bit if any bit is lost: so the second rounding sees on
            # which side of a tie the number is.
            single = floats.astype("<f4")
            bits = single.view("<u4") - (np.abs(single.astype("<f8")) > np.abs(floats))
            floats = (bits | (single != floats)).astype("<u4").view("<f4")
        words: Array = floats.astype(f"<f{width}").view(f"<u{width}")
    if dtype == "BF16":
        bits = floats.view("<u4").astype("<u8")
        words = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2")
    words[nan] = QUIET_NAN[dtype]
    return words.view(f"<i{width}")


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


def short_digest(data: bytes) -> str:
    return blake3(data).hexdigest(length=16)


def fingerprint(tensors: dict[str, Tensor]) -> str:
    state = blake3(b"diffpack fingerprint 1\n" + struct.pack("<Q", len(tensors)))
    for name, (dtype, shape, data) in sorted((name.encode(), tensor) for name, tensor in tensors.items()):
        state.update(struct.pack("<I", len(name)) + name + struct.pack("<B", len(dtype)) + dtype.encode())
        state.update(struct.pack(f"<B{len(shape)}Q", len(shape), *shape) + blake3(data).digest())
    return state.hexdigest()


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
        for positions, values in read_group(g, chunks):
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


# Section 7: files around the tensors

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
