"""One target in a process of its own, which hostile input may end: run by `tests.fuzz.run`, or alone on one file.

    python -m tests.fuzz.worker TARGET --seed 1 --inputs 300 --folder FOLDER
    python -m tests.fuzz.worker TARGET --alone FILE

Each input lies in FOLDER/current while it is read, so that it is there when the process is gone; findings are kept
beside it. What was found is printed as JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import resource
import time
import traceback
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path

from blake3 import blake3

from diffpack.errors import DiffpackError
from tests.fuzz.cost import Meter
from tests.fuzz.target import Limits, Target, all_targets

CURRENT = "current"
_ADDRESSES = 8 << 30  # bytes; what asks for more fails, and does not take the machine
_MOST_KEPT = 5  # of one kind of finding: most have one cause


@dataclass
class Report:
    """What came of the inputs of a target. `found` leads from a finding's file to what it is."""

    target: str
    inputs: int = 0
    read: int = 0
    seconds: float = 0.0
    megabytes: float = 0.0
    found: dict[str, str] = field(default_factory=dict)


def outcome(target: Target, data: bytes, meter: Meter) -> tuple[bool, str]:
    """Whether an input was read, and what is wrong with how it went; "" if nothing is."""
    read, wrong = False, ""
    with meter, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            target.read(data)
            read = True
        except DiffpackError as error:
            if isinstance(error.__cause__ or error.__context__, MemoryError):
                wrong = f"asks for more memory than there may be: {error}"
        except BaseException as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            wrong = f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}: {str(error)[:300]}"
            if isinstance(error, KeyboardInterrupt):
                raise
    return read, wrong


def costly(meter: Meter, most: Limits) -> str:
    """What an input takes too much of; "" if it does not."""
    if meter.seconds <= most.seconds and meter.megabytes <= most.megabytes:
        return ""
    return f"{meter.seconds:.1f} s, {meter.megabytes:.0f} MB"


def run(target: Target, seed: int, inputs: int, seconds: float, folder: Path) -> Report:
    """Try inputs until there were so many, or so long."""
    report, meter = Report(target.name), Meter()
    end = time.monotonic() + seconds
    kinds: dict[str, int] = {}
    for data in itertools.islice(target.inputs(seed), inputs):
        if time.monotonic() > end:
            break
        (folder / CURRENT).write_bytes(data)
        read, wrong = outcome(target, data, meter)
        report.inputs += 1
        report.read += read
        report.seconds = max(report.seconds, meter.seconds)
        report.megabytes = max(report.megabytes, meter.megabytes)
        cost = costly(meter, target.most)
        wrong = wrong or (f"cost: {cost}" if cost else "")
        kind = wrong.partition(": ")[0]
        if wrong and kinds.setdefault(kind, 0) < _MOST_KEPT:
            kinds[kind] += 1
            name = f"{target.name}-{blake3(data).hexdigest()[:12]}"
            (folder / name).write_bytes(data)
            report.found[name] = wrong
    return report


def alone(target: Target, data: bytes) -> Report:
    """Try one input, behind a proper one, so that what is imported and made once is not its cost."""
    with contextlib.suppress(DiffpackError):
        target.read(target.seeds()[0])
    meter = Meter()
    read, wrong = outcome(target, data, meter)
    report = Report(target.name, 1, read, meter.seconds, meter.megabytes)
    cost = costly(meter, target.most)
    if wrong or cost:
        report.found["input"] = wrong or f"cost: {cost}"
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target")
    parser.add_argument("--alone", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--inputs", type=int, default=1 << 62)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESSES, _ADDRESSES))
    target = all_targets()[options.target]
    if options.alone is not None:
        report = alone(target, options.alone.read_bytes())
    else:
        report = run(target, options.seed, options.inputs, options.seconds, options.folder)
    print(json.dumps(asdict(report)))


if __name__ == "__main__":
    main()
