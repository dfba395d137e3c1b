"""One part of what is measured, in a process of its own: `python -m benchmarks.live.measure PART BASE FOLDER`.

Prints a line for each number: what, value, unit, what was asked (tab separated).
"""

from __future__ import annotations

import random
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import diffpack
from benchmarks.live import made
from diffpack.live import TaskSwitcher

TASKS = 16
THOUSAND = 1024
SWITCHES = 10_000
ROUNDS = 400
_ROWS = 4
_VOCABULARY = 30_000


def main() -> None:
    part, base, folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    PARTS[part](base, folder)


def tell(what: str, value: float, unit: str = "", most: float | None = None) -> None:
    """Print a number."""
    print(what, f"{value:.3g}" if value < 1000 else f"{value:.0f}", unit, "" if most is None else most, sep="\t")


def model_of(base: Path) -> nn.Module:
    """The base, in evaluation mode."""
    from transformers import BertModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    model: nn.Module = BertModel.from_pretrained(base.parent).eval()
    return model


def timed(work: Callable[[], Any]) -> float:
    """Milliseconds of a call."""
    start = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - start)


def each_timed(work: Callable[[str], Any], names: list[str]) -> list[float]:
    """Milliseconds of a call with each name."""
    found = []
    for name in names:
        start = time.perf_counter()
        work(name)
        found.append(1000 * (time.perf_counter() - start))
    return found


def switching(base: Path, folder: Path) -> None:
    """Decoded tasks, tasks from files, and a working set of eight times what is kept."""
    model = model_of(base)
    seconds = time.perf_counter()
    switcher = TaskSwitcher(model, base)
    tell("a switcher made: the base hashed and compared", 1000 * (time.perf_counter() - seconds), "ms")
    files = made.tasks(base, folder, TASKS)
    for at, file in enumerate(files):
        switcher.add(f"task{at}", file)
        switcher.use(f"task{at}")
    each = switcher.usage().decoded_bytes / TASKS
    draw = random.Random(0)
    order = _walk(draw, ROUNDS)
    decoded = each_timed(switcher.use, order)
    from_file = []
    for name in order:
        switcher.evict(name)
        from_file += each_timed(switcher.use, [name])
    switcher.use(None)
    small = TaskSwitcher(model, base, decoded_bytes=round(each * TASKS / 8))
    for at, file in enumerate(files):
        small.add(f"task{at}", file)
    cold = each_timed(small.use, order)
    tell("`use` of a decoded task, median", float(np.median(decoded)), "ms", 5)
    tell("`use` of a decoded task, p95", float(np.percentile(decoded, 95)), "ms")
    tell("`use` of a task from its file, median", float(np.median(from_file)), "ms", 25)
    tell("`use` of a task from its file, p95", float(np.percentile(from_file, 95)), "ms")
    p95 = float(np.percentile(cold, 95))
    tell("p95 of `use`, working set of 8 x what is kept", p95, "ms")
    tell("the same, against p95 of a decoded one", p95 / float(np.percentile(decoded, 95)), "x", 5)
    tell("a decoded task in memory", each / 1e6, "MB")
    tell("a task's file", files[0].stat().st_size / 1e6, "MB")


def _walk(draw: random.Random, steps: int) -> list[str]:
    """Names of tasks, none twice in a row."""
    names = [f"task{draw.randrange(TASKS)}"]
    while len(names) < steps:
        name = f"task{draw.randrange(TASKS)}"
        if name != names[-1]:
            names.append(name)
    return names


def bits(base: Path, folder: Path) -> None:
    """The base after ten thousand random switches."""
    model = model_of(base)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    where = {name: value.data_ptr() for name, value in model.state_dict().items()}
    switcher = TaskSwitcher(model, base)
    for at, file in enumerate(made.tasks(base, folder, TASKS)):
        switcher.add(f"task{at}", file)
    draw = random.Random(1)
    names = [None, *switcher.names]
    for _ in range(SWITCHES):
        switcher.use(draw.choice(names))
    last = draw.choice(switcher.names)
    switcher.use(last)
    expected = diffpack.load(base, folder / f"{last}.dpk", framework="torch")
    state = model.state_dict()
    wrong = sum(_other_bits(state[name], expected[name]) for name in state if name in expected)
    switcher.use(None)
    wrong += sum(_other_bits(value, before[name]) for name, value in model.state_dict().items())
    moved = sum(value.data_ptr() != where[name] for name, value in model.state_dict().items())
    tell(f"tensors of other bits after {SWITCHES:,} random switches, in a task and in the base", wrong, "", 0)
    tell("tensors that moved", moved, "", 0)
    tell("tensors whose digests `verify` compared then", switcher.verify())


def _other_bits(one: Tensor, other: Tensor) -> bool:
    return not torch.equal(one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8))


def thousand(base: Path, folder: Path) -> None:
    """Tasks beyond number: 1,024 names on the files there are, each opened and decoded on its own."""
    files = made.tasks(base, folder, TASKS)
    model = model_of(base)
    nbytes = sum(value.nbytes for value in model.state_dict().values())
    switcher = TaskSwitcher(model, base)
    switcher.add("first", files[0])
    switcher.use("first")
    start = anonymous()
    added = [timed(lambda at=at: switcher.add(f"task{at}", files[at % TASKS])) for at in range(THOUSAND)]  # type: ignore[misc]
    after = anonymous()
    draw = random.Random(2)
    for _ in range(THOUSAND):
        switcher.use(f"task{draw.randrange(THOUSAND)}")
    tell("`add`, median", float(np.median(added)), "ms", 1)
    tell("`add`, p95", float(np.percentile(added, 95)), "ms")
    tell(f"memory of {THOUSAND:,} tasks that were added", (after - start) / 1e6, "MB")
    tell("and used in random order, with what is kept decoded", (anonymous() - start) / 1e6, "MB")
    tell("base and tasks, against the base", (nbytes + anonymous() - start) / nbytes, "x", 4)


def anonymous() -> int:
    """Bytes of anonymous memory of this process."""
    found = re.search(r"RssAnon:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found[1])


def mixed(base: Path, folder: Path) -> None:
    """One batch of eight tasks' rows against one task's."""
    model = model_of(base)
    switcher = TaskSwitcher(model, base)
    names = [f"task{at}" for at in range(8)]
    for name, file in zip(names, made.tasks(base, folder, TASKS), strict=False):
        switcher.add(name, file)
    rows = [name for name in names for _ in range(_ROWS)]
    for length in (32, 128):
        generator = torch.Generator().manual_seed(0)
        tokens = torch.randint(1000, _VOCABULARY, (len(rows), length), generator=generator)
        least = {"one": np.inf, "mixed": np.inf}
        with torch.inference_mode():
            for _ in range(9):
                with switcher.task("task0"):
                    least["one"] = min(least["one"], timed(lambda: model(tokens)))  # noqa: B023 - called at once
                with switcher.mixed(rows):
                    least["mixed"] = min(least["mixed"], timed(lambda: model(tokens)))  # noqa: B023 - called at once
        tell(f"one task, {len(rows)} rows of {length} tokens", least["one"], "ms")
        tell(f"8 tasks x {_ROWS} rows of {length} tokens, mixed", least["mixed"], "ms")
        tell(f"the same, against one task with {len(rows)} rows", least["mixed"] / least["one"], "x", 1.5)


def peers(base: Path, folder: Path) -> None:
    """The same switch with PEFT's adapters of as many numbers."""
    from peft import PeftModel
    from peft.utils.hotswap import hotswap_adapter

    tokens = torch.randint(1000, _VOCABULARY, (32, 128), generator=torch.Generator().manual_seed(0))
    switcher = TaskSwitcher(model_of(base), base)
    lora, shira = (made.adapters(base, folder, kind, 4) for kind in ("lora", "shira"))
    same = [folder / f"{file.name}.dpk" for file in shira]
    for adapter, file in zip(shira, same, strict=True):
        if not file.exists():
            diffpack.convert(adapter, file, base=base)
        switcher.add(adapter.name, file)
    models = {}
    for kind, files in (("lora", lora), ("shira", shira)):
        model = PeftModel.from_pretrained(model_of(base), files[0], adapter_name=files[0].name)
        for file in files[1:]:
            model.load_adapter(file, adapter_name=file.name)
        models[kind] = model.eval()
    swapped = PeftModel.from_pretrained(model_of(base), lora[0]).eval()
    times: dict[str, list[float]] = {}

    def note(what: str, work: Callable[[], Any]) -> None:
        times.setdefault(what, []).append(timed(work))

    draw = random.Random(0)
    at = 0
    for _ in range(100):
        at = draw.choice([other for other in range(4) if other != at])
        note("diffpack: `use`, decoded", lambda: switcher.use(shira[at].name))  # noqa: B023 - called at once
        note("PEFT SHiRA: `set_adapter`", lambda: models["shira"].set_adapter(shira[at].name))  # noqa: B023
        note("PEFT LoRA: `set_adapter`", lambda: models["lora"].set_adapter(lora[at].name))  # noqa: B023
    for _ in range(30):
        at = draw.choice([other for other in range(4) if other != at])
        switcher.evict(shira[at].name)
        note("diffpack: `use` from the file", lambda: switcher.use(shira[at].name))  # noqa: B023
        note("PEFT LoRA: `hotswap_adapter` from the file", lambda: hotswap_adapter(swapped, lora[at], "default"))  # noqa: B023
    for what in sorted(times):
        tell(f"{what}, median", float(np.median(times[what])), "ms")
    running = {"diffpack": switcher.model, "PEFT SHiRA": models["shira"], "PEFT LoRA": models["lora"]}
    least = dict.fromkeys(running, np.inf)
    with torch.inference_mode():
        for _ in range(7):
            for what, model in running.items():
                least[what] = min(least[what], timed(lambda: model(tokens)))  # noqa: B023 - called at once
    for what, milliseconds in least.items():
        tell(f"{what}: a forward pass of 32 rows of 128 tokens", milliseconds, "ms")
    for what, stored in (("diffpack", same[:1]), ("PEFT SHiRA", shira), ("PEFT LoRA", lora)):
        weights = stored[:1] if stored[0].is_file() else [*stored[0].glob("*.safetensors")]
        tell(f"{what}: the file", sum(part.stat().st_size for part in weights) / 1e6, "MB")


PARTS = {"switching": switching, "bits": bits, "thousand": thousand, "mixed": mixed, "peers": peers}

if __name__ == "__main__":
    main()
