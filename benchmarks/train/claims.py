"""What the trainer's rows must show, each beside its bound.

    python -m benchmarks.train.claims benchmarks/results/train.csv [docs/train.md]

Methods are compared on the tasks and seeds both have rows of: the mean of a task's seeds first, then of the tasks. The
error is that mean's standard error, from the differences' spread between seeds (a task of one seed takes the others').
With a page named, the lines between its two marks are replaced. Exits 1 if a claim does not hold.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.page import placed
from benchmarks.train import plans
from benchmarks.train.plans import AT_DENSITIES, BUDGETS, IN_BUDGETS
from benchmarks.train.rows import Groups, Key, named, read

BEGIN, END = "<!-- claims: begin -->", "<!-- claims: end -->"
MIDDLE = f"{plans.MIDDLE:g}"
DEFAULT: Key = ("sparse", "fisher", MIDDLE)
"""The trainer's default, named before the rows were measured; the best of `SPARSE` is named by them."""
SPARSE: tuple[Key, ...] = (
    DEFAULT, ("lt-sft", "", MIDDLE), ("spiel", "", MIDDLE), ("diff-pruning", "", MIDDLE),
    ("diff-pruning-structured", "", MIDDLE),
)  # fmt: skip
FULL: Key = ("full", "", "0")
FULL_HEAD_FIRST: Key = ("full", plans.HEAD_FIRST, "0")
"""As many epochs of the head as `sparse` has."""
NOISY = "rte"
"""277 dev texts and near chance: a row of it is good to 3 points."""
UNMEASURED = "not measured"
WITHIN = 1.0
SHARE_BOUND = 0.4
LOST_BY_BUDGETS = {"0.1 %": 1.5, "0.25 %": 0.5}
"""Points that a full fine-tune may lose to a budget, on the tasks that tell something."""
AS_SMALL_AS_SPARSE = "0.25 %"
"""The budget that is nearest to the file of a sparse diff of the middle density."""


@dataclass(frozen=True)
class Difference:
    """Accuracy of one method less another's, in points, over the tasks and seeds that both have."""

    points: float
    error: float
    tasks: int
    pairs: int


def accuracies(groups: Groups, key: Key) -> dict[str, float]:
    return {row["seed"]: 100 * float(row["accuracy"]) for row in groups.get(key, [])}


def difference(found: dict[str, Groups], first: Key, second: Key) -> Difference | None:
    """Compare two methods; None where no task has both."""
    by_task: dict[str, list[float]] = defaultdict(list)
    for task, groups in found.items():
        one, other = accuracies(groups, first), accuracies(groups, second)
        by_task[task] = [one[seed] - other[seed] for seed in sorted(one.keys() & other.keys())]
    used = {task: values for task, values in by_task.items() if values}
    if not used:
        return None
    several = [statistics.variance(values) for values in used.values() if len(values) > 1]
    spread = statistics.fmean(several) if several else math.nan
    error = math.sqrt(sum(spread / len(values) for values in used.values())) / len(used)
    points = statistics.fmean(statistics.fmean(values) for values in used.values())
    return Difference(points, error, len(used), sum(map(len, used.values())))


def best_sparse(found: dict[str, Groups]) -> Key:
    """Give the sparse method with the highest accuracy among those with rows of the most tasks: picked by the rows."""
    rated = [(key, difference(found, key, FULL)) for key in SPARSE]
    known = [(key, rating) for key, rating in rated if rating is not None]
    widest = max(rating.tasks for _, rating in known)
    return max((item for item in known if item[1].tasks == widest), key=lambda item: item[1].points)[0]


@dataclass(frozen=True)
class Claim:
    """One line of the page; `held` is None where nothing was measured."""

    what: str
    bound: str
    measured: str
    over: str
    held: bool | None


def compared(found: dict[str, Groups], first: Key, second: Key, bound: float | None) -> Claim:
    """Compare two methods: the first is to be at least `bound` points better (0: better; None: whatever it is)."""
    what = f"{named(first)} less {named(second)}"
    said = "" if bound is None else f"at least {bound:+.1f}" if bound else "above 0"
    result = difference(found, first, second)
    if result is None:
        return Claim(what, said, UNMEASURED, "", None)
    held = None if bound is None else result.points >= bound if bound else result.points > 0
    error = "" if math.isnan(result.error) else f" ± {result.error:.2f}"
    over = f"{count(result.tasks, 'task')}, {count(result.pairs, 'pair')}"
    return Claim(what, said, f"{result.points:+.2f}{error}", over, held)


def without_noise(found: dict[str, Groups], first: Key, second: Key) -> list[Claim]:
    """Compare two methods on all tasks but the noisy one, where that makes a difference."""
    noise, clear = ({task: found[task] for task in found if (task == NOISY) is noisy} for noisy in (True, False))
    if difference(noise, first, second) is None or difference(clear, first, second) is None:
        return []
    return [replace(compared(clear, first, second, None), what=f"the same without {NOISY}")]


def gates(variant: str = "", density: str = MIDDLE) -> tuple[Key, Key]:
    """Give structured diff pruning and the same without gates."""
    return ("diff-pruning-structured", variant, density), ("non-adaptive", variant, density)


def count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def must_show(found: dict[str, Groups], method: Key) -> list[Claim]:
    """Hold a sparse method to what the best of them is to show."""
    beaten: list[Key] = [("last-layer", "", "0"), ("adapters", "64", "0")]
    beaten += [(kind, "", MIDDLE) for kind in AT_DENSITIES]
    lines = [compared(found, method, FULL, -WITHIN), *without_noise(found, method, FULL)]
    lines += [compared(found, method, other, 0.0) for other in beaten]
    lines += [compared(found, method, in_budget(AS_SMALL_AS_SPARSE), None)]
    shares = [float(row["share_without_head_pct"]) for groups in found.values() for row in groups.get(method, [])]
    what, largest = f"{named(method)}: the largest file without its head, % of the base's bytes", max(shares)
    over = count(len(shares), "file")
    return [*lines, Claim(what, f"under {SHARE_BOUND}", f"{largest:.3f}", over, largest < SHARE_BOUND)]


def in_budget(budget: str) -> Key:
    """Give the full fine-tune in a byte budget."""
    return IN_BUDGETS, budget, "0"


def budgets(found: dict[str, Groups]) -> list[Claim]:
    """Hold what budgets leave of full fine-tunes to these, and the files to their budgets."""
    noise, clear = ({task: found[task] for task in found if (task == NOISY) is noisy} for noisy in (True, False))
    lines = []
    for budget in BUDGETS:
        lost = LOST_BY_BUDGETS.get(budget)
        line = compared(clear, in_budget(budget), FULL, None if lost is None else -lost)
        alone = compared(noise, in_budget(budget), FULL, None)
        lines.append(replace(line, what=f"{line.what}, without {NOISY}"))
        lines.append(replace(alone, what=f"{alone.what}, {NOISY} alone"))
    used = [
        float(row["share_pct"]) / float(budget.rstrip(" %"))
        for groups in found.values() for budget in BUDGETS for row in groups.get(in_budget(budget), [])
    ]  # fmt: skip
    what, bound = f"{IN_BUDGETS}: the fullest file, head and all, of its budget", "at most 1"
    if not used:
        return [*lines, Claim(what, bound, UNMEASURED, "", None)]
    return [*lines, Claim(what, bound, f"{max(used):.4f}", count(len(used), "file"), max(used) <= 1)]


def claims(found: dict[str, Groups]) -> list[Claim]:
    """Give every claim."""
    lines = [*must_show(found, DEFAULT), compared(found, DEFAULT, FULL_HEAD_FIRST, None)]
    best = best_sparse(found)
    if best != DEFAULT:
        lines += [replace(line, what=f"best by these rows: {line.what}") for line in must_show(found, best)]
    lines += budgets(found)
    lines.append(compared(found, *gates(), 0.0))
    lines += without_noise(found, *gates())
    lines.append(compared(found, *gates(plans.AS_PUBLISHED), 0.0))
    lines += [compared(found, *gates(density=f"{density:g}"), None) for density in plans.OUTER]
    return lines


def main() -> None:
    source, *page = sys.argv[1:]
    lines = claims(read(Path(source)))
    marks = {True: "ok", False: "MISS", None: ""}
    text = "\n".join(
        ["| accuracy, points | bound | measured | over | |", "|---|---|---|---|---|"]
        + [f"| {line.what} | {line.bound} | {line.measured} | {line.over} | {marks[line.held]} |" for line in lines]
    )
    print(text)
    if page:
        path = Path(page[0])
        path.write_text(placed(path.read_text(), BEGIN, END, text))
    sys.exit(0 if all(line.held is not False for line in lines) else 1)


if __name__ == "__main__":
    main()
