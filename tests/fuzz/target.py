"""What is fuzzed: where inputs begin, how they are changed, and what reads them."""

from __future__ import annotations

import atexit
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import NamedTuple

from tests.fuzz import targets


class Limits(NamedTuple):
    """What an input below 1 MB may take: processor time, and memory above the start."""

    seconds: float
    megabytes: float


OURS = Limits(2, 256)
HDF5 = Limits(10, 4500)
"""HDF5's library (2.0) takes the up to 4 GB that a damaged length of a text or header claims, before it refuses it;
nothing it offers bounds that."""
Mutate = Callable[[bytes, random.Random], bytes]


class WrongResultError(AssertionError):
    """What was read is not what it should be: the worst of findings."""


@dataclass(frozen=True)
class Target:
    """One reader. `seeds` are proper inputs; `read` raises `DiffpackError` to refuse one, and nothing else;
    more than `most` is a finding.

    `read` may raise `WrongResultError`.
    """

    name: str
    seeds: Callable[[], list[bytes]]
    mutate: Mutate
    read: Callable[[bytes], object]
    most: Limits = OURS

    def inputs(self, seed: int) -> Iterator[bytes]:
        """Endlessly many inputs, the seeds first; the same for the same seed."""
        rng = random.Random(f"{self.name} {seed}")
        seeds = self.seeds()
        yield from seeds
        while True:
            data = rng.choice(seeds)
            for _ in range(rng.choice([1, 1, 1, 2, 4])):
                data = self.mutate(data, rng)
            if len(data) <= MOST_BYTES:
                yield data


MOST_BYTES = 1_000_000
"""Of an input: what may be asked of larger ones is not what is looked for here."""


def all_targets() -> dict[str, Target]:
    """Every target by its name, from the files of the folder `targets`."""
    modules = (import_module(f"{targets.__name__}.{found.name}") for found in iter_modules(targets.__path__))
    found = [target for module in modules for target in module.TARGETS]
    return {target.name: target for target in sorted(found, key=lambda target: target.name)}


@cache
def scratch() -> Path:
    """A folder of this process for the input's files, in memory where there is such a place; it goes at the end."""
    memory = Path("/dev/shm")  # noqa: S108 # a folder of its own is made in it
    folder = tempfile.mkdtemp(prefix="diffpack-fuzz-", dir=memory if os.access(memory, os.W_OK) else None)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def placed(name: str, data: bytes) -> Path:
    """A file of that name with these bytes, which takes the place of the one before."""
    path = scratch() / name
    path.unlink(missing_ok=True)  # a new file: the one before may be mapped still
    path.write_bytes(data)
    return path
