"""Bytes <-> file: header, chunks, manifest, trailer. Knows nothing of models."""
