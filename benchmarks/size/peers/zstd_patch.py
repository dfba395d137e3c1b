"""zstd --patch-from: the base as a prefix, long-distance matching, a window over both files.

Through backports.zstd (Python 3.14's own module), which can reference a prefix as the command line does. A raw
dictionary is not the same: long-distance matches do not reach into it.
"""

from __future__ import annotations

from pathlib import Path

from backports import zstd

LONGEST_WINDOW = 31


def prefix(base: Path) -> tuple[zstd.ZstdDict, int]:
    return zstd.ZstdDict(base.read_bytes(), is_raw=True).as_prefix


def encode(base: Path, tuned: Path, out: Path, level: str) -> None:
    data = tuned.read_bytes()
    options = {
        zstd.CompressionParameter.compression_level: int(level),
        zstd.CompressionParameter.enable_long_distance_matching: 1,
        zstd.CompressionParameter.window_log: min(LONGEST_WINDOW, (base.stat().st_size + len(data)).bit_length()),
    }
    out.write_bytes(zstd.compress(data, options=options, zstd_dict=prefix(base)))


def decode(base: Path, out: Path, result: Path, level: str) -> None:  # noqa: ARG001 - decoding needs no level
    options = {zstd.DecompressionParameter.window_log_max: LONGEST_WINDOW}
    result.write_bytes(zstd.decompress(out.read_bytes(), zstd_dict=prefix(base), options=options))
