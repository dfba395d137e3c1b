"""Small files of a task beside one another: cut from a full fine-tune, or trained for the purpose, as Markdown.

    python -m benchmarks.train.small benchmarks/results/train.csv [docs/train.md]

With a page named, what stands between its two marks is replaced. Points are accuracy less that of full fine-tuning,
the mean of the tasks that tell something, over the seeds that both have; bytes are of whole files, head and all.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

from benchmarks.page import placed
from benchmarks.train.claims import DEFAULT, FULL, MIDDLE, NOISY, difference, in_budget
from benchmarks.train.plans import AT_DENSITIES, BEST, BUDGETS
from benchmarks.train.rows import Groups, Key, named, read

BEGIN, END = "<!-- small: begin -->", "<!-- small: end -->"
CUT: tuple[Key, ...] = (*(in_budget(budget) for budget in BUDGETS), *((kind, "", MIDDLE) for kind in AT_DENSITIES))
TRAINED: tuple[Key, ...] = (
    ("sparse", "fisher", "0.001"), ("sparse", "smallest", MIDDLE), DEFAULT, (BEST, "", MIDDLE),
    ("lora", "8", "0"), ("adapters", "8", "0"), ("adapters", "64", "0"),
)  # fmt: skip
HEADER = ("| file | made by | bytes, % of the base | points less full | fine-tunes |", "|---|---|--:|--:|--:|")


def line(found: dict[str, Groups], key: Key, made: str) -> str | None:
    """Give a row; None where nothing was measured."""
    clear = {task: groups for task, groups in found.items() if task != NOISY}
    result = difference(clear, key, FULL)
    if result is None:
        return None
    share = statistics.fmean(float(row["share_pct"]) for groups in clear.values() for row in groups.get(key, []))
    return f"| {named(key)} | {made} | {share:.2g} | {result.points:+.2f} | {result.pairs} |"


def table(found: dict[str, Groups]) -> str:
    """Give the table."""
    lines = [line(found, key, "cutting") for key in CUT] + [line(found, key, "training") for key in TRAINED]
    return "\n".join([*HEADER, *filter(None, lines)])


def main() -> None:
    source, *page = sys.argv[1:]
    text = table(read(Path(source)))
    print(text)
    if page:
        path = Path(page[0])
        path.write_text(placed(path.read_text(), BEGIN, END, text))


if __name__ == "__main__":
    main()
