"""zstd --patch-from: the base as a raw dictionary, long-distance matching, the window as large as both files."""

from __future__ import annotations

from pathlib import Path

import zstandard

LONGEST_WINDOW = 31


def dictionary(base: Path) -> zstandard.ZstdCompressionDict:
    return zstandard.ZstdCompressionDict(base.read_bytes(), dict_type=zstandard.DICT_TYPE_RAWCONTENT)


def encode(base: Path, tuned: Path, out: Path, level: str) -> None:
    data = tuned.read_bytes()
    window = min(LONGEST_WINDOW, (base.stat().st_size + len(data)).bit_length())
    options = zstandard.ZstdCompressionParameters.from_level(int(level), window_log=window, enable_ldm=True)
    compressor = zstandard.ZstdCompressor(dict_data=dictionary(base), compression_params=options)
    out.write_bytes(compressor.compress(data))


def decode(base: Path, out: Path, result: Path, level: str) -> None:  # noqa: ARG001 - decoding needs no level
    decompressor = zstandard.ZstdDecompressor(dict_data=dictionary(base), max_window_size=1 << LONGEST_WINDOW)
    result.write_bytes(decompressor.decompress(out.read_bytes()))
