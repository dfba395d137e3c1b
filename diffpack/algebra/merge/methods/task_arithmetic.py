"""Task arithmetic: the weighted sum of the diffs.

Ilharco et al. 2023, *Editing Models with Task Arithmetic* (arXiv 2212.04089), section 2: theta + lambda sum(w_i tau_i).
"""

from diffpack.algebra.merge.method import Method

METHOD = Method("task_arithmetic", "Ilharco et al. 2023, arXiv 2212.04089")
