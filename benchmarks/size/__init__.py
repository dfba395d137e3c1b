"""Sizes and times of diffs, diffpack's and its peers', on the same pairs: `make bench-size` writes docs/size.md.

`catalogue` makes the pairs, `contenders` lists who is measured, `measure` runs them as whole processes and checks what
comes back, `results` keeps the rows, `report` and `plot` show them. `peers/` runs in an environment of its own, so that
file and `tensors` import nothing but numpy and the peer.
"""
