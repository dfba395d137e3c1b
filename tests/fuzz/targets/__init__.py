"""The targets, a file for each kind of reader; each has `TARGETS`."""
