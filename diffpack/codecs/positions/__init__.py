"""Which words of a span change: one file a coding."""

CODINGS = ("all", "classes", "gaps", "levels")
"""Ids of the position codings a group may use."""
