"""Change: the entries that full fine-tuning moved most, wherever they came to lie.

The selection of LT-SFT (Ansell et al. 2022, arXiv 2110.07560, section 3), which then rewinds the model to the base
and trains them again, and of non-adaptive diff pruning, which does not rewind.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from diffpack.train.selections.top import floors, top_k


def by_change(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor], names: Iterable[str], k: int, floor: float = 0.0
) -> dict[str, Tensor]:
    """Pick the k entries of the named tensors with the largest |after - before|."""
    order = list(names)
    sizes = {name: before[name].numel() for name in order}
    return top_k(order, lambda name: (after[name].detach() - before[name].detach()).abs(), k, floors(sizes, k, floor))
