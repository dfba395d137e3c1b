"""A diff in memory and as a file: its records, layout and side files, and how one is written."""
