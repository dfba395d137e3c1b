"""Arrays <-> bytes: streams of integers, positions, values."""
