"""Times of extract and apply against plain processes, from 10 MB to 4 GB: `make bench-speed` writes docs/speed.md.

`made` makes the pairs, `measure` runs whole processes in turn, `results` keeps the rows, `report` and `plot` show them.
"""
