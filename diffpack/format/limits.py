"""What a reader accepts at most: section 9 of the specification, which a test compares with this file."""

from typing import NamedTuple


class Allowance(NamedTuple):
    """A limit that grows with a file: so much for any, and `each` more for every `of` bytes."""

    free: int
    each: int = 1
    of: int = 1

    def most(self, nbytes: int) -> int:
        """The limit for so many bytes."""
        return self.free + nbytes * self.each // self.of


MANIFEST_BYTES = 1 << 28
CHUNKS = 1 << 24
STREAMS_A_CHUNK = 16384
STREAM_DECODED_BYTES = 1 << 27
CHUNK_DECODED_BYTES = 1 << 30
STREAM_STORED_BYTES = 1 << 28
NAME_BYTES = 65535
FILE_NAME_BYTES = 255
PATH_BYTES = 1024
PATH_PARTS = 8
DIMENSIONS = 64
WORDS = 1 << 62
CLASSES_SPAN_WORDS = 1 << 24
RULE_WORDS = 1 << 32
RANK = 65535
JSON_INTEGER = (1 << 63) - 1
ZSTD_WINDOW = 1 << 27
SPAN_STREAM_BYTES = 1 << 25
MANIFEST_DECODED = Allowance(1 << 20, 16)
"""Bytes of a manifest, by those it is stored in. Manifests of real models take 2 to 6 times their stored bytes."""
MANIFEST_VALUES = Allowance(1 << 18, 1, 4)
"""Commas and opening brackets in a manifest, by the file's bytes. A model of 18,000 tensors has one for 8 of them."""
NUMBERS = Allowance(1 << 24, 64)
"""Numbers in all streams, by the file's bytes. Diffs of real models have up to 7 for a byte."""
RESULT_BYTES = Allowance(1 << 28, 64)
RESULT_OF_BASE = 4
"""Bytes of a result, by the file's bytes; and by the base's. A few bytes of a file can claim tensors of any size."""


def most_result(file_bytes: int, base_bytes: int) -> int:
    """Bytes that the tensors of a result may have."""
    return RESULT_BYTES.most(file_bytes) + RESULT_OF_BASE * base_bytes
