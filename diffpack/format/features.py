"""What a file may require of its reader, and what a writer may be asked for."""

from __future__ import annotations

FEATURES = {"classes": 0, "grid": 1, "levels": 1, "pco": 0, "rule": 1, "unsealed": 1, "zstd": 0}
"""What a file may require of this reader, and the minor version of the format that brought it."""
PROFILES = ("compact", "portable", "smallest")
"""What a writer may be asked for: pco streams, zstd alone, or pco with exact changes coded against the base."""
