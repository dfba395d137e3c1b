"""Which rows the trainer's table has, in the order they are measured, and the settings of each method."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

QUICK = ("corporate_messaging", "sms_spam", "bbc_news")
"""Tasks whose rows take a minute or two each: they get every seed and density first."""
TASKS = (*QUICK, "sst2", "rte")
SEEDS = (0, 1, 2)
EPOCHS, BATCH, LENGTH, PRECISION, DROPOUT = 3, 32, 128, "bf16", 0.0
"""The same for every row: what makes many rows possible on a processor, no method's own setting."""
SHORTER = {"bbc_news": 64}
"""Tokens of a text where they are fewer: a news story tells its topic early."""
MIDDLE = 0.005
OUTER = (0.001, 0.01)
"""The densities beside the middle one."""
AT_DENSITIES = ("posthoc-top-k", "posthoc-grid")
"""A full fine-tune's largest changes up to a density, and the best of the grid alone in as many bytes."""
IN_BUDGETS = "posthoc-budget"
"""What `extract --budget` makes of a full fine-tune; the variant says the budget."""
POSTHOC = (*AT_DENSITIES, IN_BUDGETS)
BUDGETS = ("0.05 %", "0.1 %", "0.25 %", "0.5 %")
"""Of the base's bytes: the whole file, head and manifest too, without side files."""
RATES: dict[str, float] = {
    "sparse": 3e-3, "lt-sft": 3e-3, "spiel": 3e-3, "bitfit": 1e-2, "top-layers": 5e-4, "diff-pruning": 3e-4,
    "diff-pruning-structured": 3e-4, "non-adaptive": 2.5e-3, "full": 1e-4, "last-layer": 1e-3, "head-only": 1e-2,
    "adapters": 1e-3, "lora": 5e-3, "magnitude-pruning": 1e-4, "movement-pruning": 1e-4,
}  # fmt: skip
"""The same for all tasks, densities and seeds, from a few runs on corporate_messaging (docs/train.md). For diff
pruning it is the diff's; its last stage has the non-adaptive variant's, which is the same stage."""
PENALTY = 1.25e-7
"""lambda of BERT-large: 42 / entries, the default, closes nearly all gates here within the longer tasks' steps."""
HEAD_FIRST = "head first"
"""The variant of full fine-tuning that, like `sparse`, trains the head alone for an epoch before."""
AS_PUBLISHED, PUBLISHED_RATE = "last stage 5e-5", 5e-5
"""The variant of diff pruning whose stage with a fixed mask has the paper's learning rate."""
WITHOUT_AND_WITH_GATES = ("non-adaptive", "diff-pruning-structured")
"""What the gates are worth: the same without and with them."""
BEST = "diff-pruning"
"""The sparse method that is best by the rows of seed 0: only further seeds can say whether that was luck."""


@dataclass(frozen=True)
class Plan:
    """One row to measure. `variant` is a selection, a size or a budget; `density` 0 where the method has none."""

    task: str
    method: str
    variant: str = ""
    density: float = 0.0
    seed: int = 0

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        """Give what tells rows apart, as the rows spell it."""
        return (self.task, self.method, self.variant, f"{self.density:g}", str(self.seed))

    @property
    def needs(self) -> Plan:
        """The full fine-tune that a post-hoc row is cut from."""
        return Plan(self.task, "full", seed=self.seed)


def compared(task: str, seed: int) -> Iterator[Plan]:
    """Give the rows that the main comparison needs, of one task and seed."""
    yield Plan(task, "full", seed=seed)
    yield Plan(task, "sparse", "fisher", MIDDLE, seed)
    yield Plan(task, "last-layer", seed=seed)
    yield Plan(task, "adapters", "64", seed=seed)
    yield from (Plan(task, kind, "", MIDDLE, seed) for kind in AT_DENSITIES)
    yield from budgets(task, seed)
    yield Plan(task, "non-adaptive", "", MIDDLE, seed)
    yield Plan(task, "diff-pruning-structured", "", MIDDLE, seed)


def budgets(task: str, seed: int) -> Iterator[Plan]:
    """Give what byte budgets leave of the full fine-tune of one task and seed."""
    yield from (Plan(task, IN_BUDGETS, budget, seed=seed) for budget in BUDGETS)


def others(task: str, seed: int = 0) -> Iterator[Plan]:
    """Give every other method of one task and seed, at the middle density, the quickest first."""
    yield Plan(task, "head-only", seed=seed)
    yield Plan(task, "top-layers", "2", seed=seed)
    yield Plan(task, "bitfit", seed=seed)
    yield Plan(task, "lora", "8", seed=seed)
    yield Plan(task, "spiel", "", MIDDLE, seed)
    yield Plan(task, "lt-sft", "", MIDDLE, seed)
    yield Plan(task, "magnitude-pruning", "", 0.5, seed)
    yield Plan(task, "movement-pruning", "", 0.5, seed)
    yield Plan(task, "diff-pruning", "", MIDDLE, seed)


def variants(task: str) -> Iterator[Plan]:
    """Give other selections, sizes and settings of methods that the task has rows of."""
    yield from (Plan(task, "sparse", selection, MIDDLE) for selection in ("gradient", "random", "smallest", "largest"))
    yield Plan(task, "adapters", "8")
    yield Plan(task, "full", HEAD_FIRST)


def as_published(task: str) -> Iterator[Plan]:
    """Give structured diff pruning and the same without gates, with the published rate of the last stage."""
    yield from (Plan(task, method, AS_PUBLISHED, MIDDLE) for method in WITHOUT_AND_WITH_GATES)


def gates(task: str) -> Iterator[Plan]:
    """Give structured diff pruning and the same without gates, where they may differ more than at 0.5 %."""
    yield from as_published(task)
    yield from outer(task, WITHOUT_AND_WITH_GATES)


def outer(task: str, methods: tuple[str, ...]) -> Iterator[Plan]:
    """Give the outer densities of some methods, seed 0."""
    for density in OUTER:
        yield from (Plan(task, method, "fisher" if method == "sparse" else "", density) for method in methods)


def plans() -> Iterator[Plan]:
    """Give all rows, the most telling for their time first."""
    for task in TASKS:
        yield from compared(task, 0)
        yield from outer(task, AT_DENSITIES)
    for seed in SEEDS[1:]:
        for task in QUICK:
            yield from compared(task, seed)
    yield from gates(QUICK[0])
    for task in TASKS:
        yield from others(task)
    for task in QUICK[1:]:
        yield from gates(task)
    for task in TASKS:
        yield from outer(task, ("sparse",))
    yield from as_published("rte")
    for seed in SEEDS[1:]:
        yield from compared("rte", seed)
    for seed in SEEDS[1:]:
        yield from (Plan(task, BEST, "", MIDDLE, seed) for task in (*QUICK, "rte"))
    yield from as_published("sst2")
    for task in TASKS:
        yield from variants(task)
    for task in QUICK:
        yield from outer(task, ("lt-sft", "diff-pruning", "spiel"))
    for seed in SEEDS[1:]:
        for task in QUICK:
            yield from (plan for plan in others(task, seed) if plan.method in ("lt-sft", "lora", "bitfit"))
    yield from (Plan("sst2", method, "", OUTER[0]) for method in WITHOUT_AND_WITH_GATES)
    for seed in SEEDS[1:]:
        yield Plan("sst2", "full", seed=seed)
        yield from budgets("sst2", seed)
