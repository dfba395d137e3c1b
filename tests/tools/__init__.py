"""What several tests share."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
ORACLES = ROOT / "tests" / "oracles"
"""What other tools made of small models, frozen by `make oracle`, `oracle-bridges` and `oracle-inputs`."""
