"""Diffs in, diffs out: composed, inverted, merged, compared, carried to another base."""
