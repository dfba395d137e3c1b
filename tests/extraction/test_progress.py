"""The progress of an extraction is one line, from its first byte to its last, whatever it has to do."""

from __future__ import annotations

from itertools import groupby

import numpy as np
import pytest

import diffpack
from tests.tools.models import model, tune

EXACT = ["scanning", "choosing", "coding"]
PASS = ["fitting", "coding", "checking"]


def large(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {f"layers.{at}": rng.standard_normal((200, 300)).astype(np.float32) for at in range(4)}


@pytest.mark.parametrize(
    ("options", "stages"),
    [
        ({}, EXACT),
        ({"profile": "smallest"}, EXACT),
        ({"density": 0.01, "values": "f16"}, [*EXACT, "checking"]),
        ({"values": "lowrank", "rank": 2}, [*EXACT, "checking"]),
        ({"budget": 40_000}, ["scanning", "searching", *PASS]),
        ({"budget": "99%"}, ["scanning", "searching", "coding"]),
        ({"budget": 40_000, "rank": 0}, ["scanning", *PASS]),
        ({"target_error": 0.05}, ["scanning", "searching", *PASS]),
        ({"target_error": 1e-6}, ["scanning", "searching", "coding"]),
    ],
    ids=str,
)
def test_it_goes_from_nothing_to_the_whole_and_never_back(options, stages):
    base = large()
    tuned = {name: array + np.float32(0.01) * large(1)[name] for name, array in base.items()}
    told: list[tuple[str, int, int]] = []
    diffpack.extract(base, tuned, **options, threads=1, progress=lambda *report: told.append(report))
    done = [done for _, done, _ in told]
    assert {total for _, _, total in told} == {sum(array.nbytes for array in tuned.values())}
    assert 0 < done[0] < done[-1] == told[-1][2]
    assert done == sorted(done)
    order = [stage for stage, _ in groupby(what for what, _, _ in told)]
    assert list(dict.fromkeys(order)) == stages
    assert order[: len(stages)] == stages


@pytest.mark.parametrize("tuned", [model(), {}, {"empty": np.zeros((0, 3), np.float32)}, tune(model())])
def test_it_ends_where_nothing_is_to_be_done(tuned):
    told: list[tuple[str, int, int]] = []
    diffpack.extract(model(), tuned, allow_removed=True, progress=lambda *report: told.append(report))
    assert told[-1][1] == told[-1][2] == sum(array.nbytes for array in tuned.values())
