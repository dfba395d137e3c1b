# Kept as it was released with format 1.1; nothing is changed but this line.
"""Chunks and streams: section 4 of format.md."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import zstandard
from blake3 import blake3

from .words import Array, Invalid, check

STREAMS = {f"{kind}{8 * size}": np.dtype(f"<{kind}{size}") for kind in "ui" for size in (1, 2, 4, 8)}


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
        check(len(chunk["streams"]) <= 16384, "F8", "too many streams in a chunk")
        check(sum(stream[3] for stream in chunk["streams"]) == len(body), "C1", "streams do not fill their chunk")
        check(blake3(body).hexdigest() == chunk["digest"], "C2", "wrong digest of a chunk")
        decoded = sum(count * STREAMS[dtype].itemsize for _, dtype, count, _ in chunk["streams"] if dtype in STREAMS)
        check(decoded <= 1073741824, "F8", "a chunk of too many numbers")
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
