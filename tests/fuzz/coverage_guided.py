"""The same targets and changes behind Google's atheris, which keeps inputs that reach new lines (pip install atheris).

It runs in one process, which hostile input to HDF5 may end; what it keeps lies in the folder of findings.
"""

from __future__ import annotations

import contextlib
import random
import sys
from pathlib import Path

from diffpack.errors import DiffpackError
from tests.fuzz.cost import Meter
from tests.fuzz.target import MOST_BYTES, Target
from tests.fuzz.worker import costly


class CostlyError(AssertionError):
    """An input below the limit took too much."""


def guided(target: Target, seconds: float, folder: Path) -> None:
    """Fuzz one target for so long; ends the process, as libFuzzer does."""
    try:
        import atheris
    except ImportError:
        sys.exit("atheris is not installed: pip install atheris (Linux and macOS), or leave --engine out")
    corpus = folder / f"{target.name}-corpus"
    corpus.mkdir(exist_ok=True)
    for at, seed in enumerate(target.seeds()):
        (corpus / f"seed-{at}").write_bytes(seed)
    atheris.instrument_all()
    meter = Meter()

    def one(data: bytes) -> None:
        with meter, contextlib.suppress(DiffpackError):
            target.read(data)
        if cost := costly(meter, target.most):
            raise CostlyError(cost)

    def change(data: bytes, most: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() >= _BY_ATHERIS:
            with contextlib.suppress(Exception):  # of what atheris made, some is nothing that a change begins with
                return target.mutate(data, rng)[:most]
        return bytes(atheris.Mutate(data, most))

    arguments = [sys.argv[0], f"-max_len={MOST_BYTES}", f"-max_total_time={int(seconds)}", "-rss_limit_mb=2048"]
    arguments += [f"-artifact_prefix={folder}/{target.name}-", str(corpus)]
    atheris.Setup(arguments, one, custom_mutator=change)
    atheris.Fuzz()


_BY_ATHERIS = 0.2
"""Part of the inputs that atheris changes itself; the others are changed as the format asks for."""
