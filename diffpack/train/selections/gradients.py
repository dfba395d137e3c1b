"""Fisher and gradient: the entries on which the loss depends most, before anything is trained.

`fisher`: the highest sums of squared gradients, an estimate of the diagonal of the Fisher information (FISH mask: Sung,
Nair, Raffel 2021, arXiv 2111.09839, section 3; there over single texts, here over batches, which costs a
batch's size less). `gradient`: the highest |sum of gradients| (SIFT: Song et al. 2024, arXiv 2405.16700).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from diffpack.train.data import Batch
from diffpack.train.precision import autocast
from diffpack.train.selections.top import floors, top_k

SAMPLES = 1024
"""Texts the scores are taken from: FISH mask finds no gain beyond about that many."""


def by_gradient(
    model: nn.Module,
    names: Iterable[str],
    batches: Iterable[Batch],
    k: int,
    *,
    squared: bool = True,
    floor: float = 0.0,
    precision: str = "fp32",
) -> dict[str, Tensor]:
    """Pick k entries of the named parameters by the gradients of some batches; dropout is off meanwhile.

    Hooks take each tensor's gradient while it lives, so that never two dense gradients are kept beside the
    scores, which are float32. Leaves the module as it was.
    """
    wanted = set(names)
    chosen = {name: value for name, value in model.named_parameters() if name in wanted}
    scores = _scores(model, chosen, batches, squared=squared, precision=precision)
    seen = [name for name in chosen if name in scores]
    sizes = {name: chosen[name].numel() for name in seen}
    return top_k(seen, lambda name: scores[name].abs_(), k, floors(sizes, k, floor))


def _scores(
    model: nn.Module,
    chosen: Mapping[str, Tensor],
    batches: Iterable[Batch],
    *,
    squared: bool,
    precision: str,
) -> dict[str, Tensor]:
    """Add up the gradients (or their squares) of the chosen parameters over all batches, by name."""
    before = {name: value.requires_grad for name, value in model.named_parameters()}
    training = model.training
    scores: dict[str, Tensor] = {}
    for name, value in model.named_parameters():
        value.requires_grad_(name in chosen)

    def take(name: str, parameter: Tensor) -> None:
        gradient = parameter.grad
        assert gradient is not None
        score = gradient.float()
        if squared:
            score = score.square_() if score.data_ptr() == gradient.data_ptr() else score.square()
        scores[name] = scores[name].add_(score) if name in scores else score
        parameter.grad = None

    handles = [
        value.register_post_accumulate_grad_hook(lambda parameter, name=name: take(name, parameter))
        for name, value in chosen.items()
    ]
    model.eval()
    try:
        for batch in batches:
            with autocast(precision):
                loss = model(**batch).loss
            loss.backward()
    finally:
        for handle in handles:
            handle.remove()
        for name, value in model.named_parameters():
            value.requires_grad_(before[name])
        model.train(training)
    return scores
