"""Which words of a span change: one file a coding."""

CODINGS = ("all", "classes", "gaps")
"""Ids of the position codings a group may use."""
