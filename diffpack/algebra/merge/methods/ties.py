"""TIES: trim each diff to its largest changes, elect a sign for each entry, average the values that have it.

Yadav et al. 2023, *TIES-Merging* (arXiv 2306.01708), section 4.2. As in mergekit, trimming is per tensor, and signs are
elected by the weighted values.
"""

from diffpack.algebra.merge.method import Method
from diffpack.algebra.merge.methods.magnitude import keep_largest

METHOD = Method("ties", "Yadav et al. 2023, arXiv 2306.01708", keep_largest, elect="weighted", normalize=True)
