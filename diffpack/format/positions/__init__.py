"""Which words of a span change: one file a coding."""

CODINGS = ("all", "classes", "gaps", "levels", "rule")
"""Ids of the position codings a group may use."""
