"""What a reader accepts at most: section 9 of the specification, which a test compares with this file."""

MANIFEST_BYTES = 1 << 28
CHUNKS = 1 << 24
STREAMS_A_CHUNK = 16384
STREAM_DECODED_BYTES = 1 << 27
CHUNK_DECODED_BYTES = 1 << 30
STREAM_STORED_BYTES = 1 << 28
NAME_BYTES = 65535
DIMENSIONS = 64
WORDS = 1 << 62
CLASSES_SPAN_WORDS = 1 << 24
RULE_WORDS = 1 << 32
JSON_INTEGER = (1 << 63) - 1
ZSTD_WINDOW = 1 << 27
