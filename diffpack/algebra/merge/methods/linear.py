"""The weighted average of the tuned models, which mergekit calls linear.

Wortsman et al. 2022, *Model soups* (arXiv 2203.05482), section 2: the mean of the weights, which is the base plus the
mean of the diffs.
"""

from dataclasses import replace

from diffpack.algebra.merge.method import Method

METHOD = Method("linear", "Wortsman et al. 2022, arXiv 2203.05482", normalize=True)
AVERAGE = replace(METHOD, name="average")
