"""Run one peer once."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path


def main() -> None:
    name, verb, first, second, third, *options = sys.argv[1:]
    peer = importlib.import_module(f"benchmarks.size.peers.{name}")
    getattr(peer, verb)(Path(first), Path(second), Path(third), *options)


if __name__ == "__main__":
    main()
