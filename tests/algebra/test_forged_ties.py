"""An alias that leads nowhere is refused by every operation that has the base at hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import diffpack
from diffpack.errors import CorruptFileError
from tests.tools.forged import forged
from tests.tools.models import model, tune, write_safetensors

WORK: dict[str, Callable[[Any, Any, Any], Any]] = {
    "merge": lambda forged, base, honest: diffpack.merge([honest, forged], base=base),
    "merge first": lambda forged, base, honest: diffpack.merge([forged, honest], base=base),
    "compare": lambda forged, base, honest: diffpack.compare(honest, forged, base),
    "compose": lambda forged, base, honest: diffpack.compose([forged], base=base),
    "invert": lambda forged, base, honest: diffpack.invert(forged, base=base),
    "rebase": lambda forged, base, honest: diffpack.rebase(forged, base, base=base),
    "apply": lambda forged, base, honest: diffpack.load(base, forged),
    "verify": lambda forged, base, honest: diffpack.verify(forged, base),
}


@pytest.mark.parametrize("work", WORK.values(), ids=WORK)
def test_an_alias_that_leads_nowhere_is_refused(work, tmp_path: Path):
    tuned = tune(model(), 0.2)
    base = write_safetensors(tmp_path / "base.safetensors", model())
    honest = diffpack.extract(base, tuned)
    tied = diffpack.extract(base, tuned | {"tied": tuned["ids"]}, tmp_path / "tied.dpk")
    assert dict(tied.manifest.aliases) == {"tied": "ids"}
    lying = forged((tmp_path / "tied.dpk").read_bytes(), lambda manifest: manifest["aliases"].update(tied="no"))
    with pytest.raises(CorruptFileError, match=r"the alias 'tied' leads to no tensor \[A5\]"):
        work(diffpack.open(lying), base, honest)
