"""Hostile inputs end in an error of the library's, soon and in little memory, and what was found stays mended."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.fuzz.cost import Meter
from tests.fuzz.findings import BY_HAND, kept
from tests.fuzz.target import MOST_BYTES, OURS, all_targets
from tests.fuzz.worker import outcome

pytest.importorskip("h5py")
pytest.importorskip("torch")

_INPUTS = 250  # of a target, beside its seeds: two seconds of most
_ROOM = 3  # busy machines, instrumented runs: what is looked for takes far more


@pytest.mark.parametrize("name", all_targets())
def test_inputs_of_a_known_seed_find_nothing(name, tmp_path):
    """In a process of its own: HDF5 could end this one."""
    inputs = len(all_targets()[name].seeds()) + _INPUTS
    options = ["--seed", "20", "--inputs", str(inputs), "--folder", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.worker", name, *options], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, f"ended by {tmp_path / 'current'}: {done.stderr}"
    report = json.loads(done.stdout)
    assert report["inputs"] == inputs
    assert 0 < report["read"] < inputs
    assert report["found"] == {}


def _try(target, data):
    meter = Meter()
    _, wrong = outcome(all_targets()[target], data, meter)
    assert wrong == ""
    assert meter.seconds < _ROOM * OURS.seconds
    assert meter.megabytes < OURS.megabytes


@pytest.mark.parametrize("name", BY_HAND)
def test_inputs_that_ask_for_much_take_little(name):
    target, make = BY_HAND[name]
    data = make()
    assert len(data) <= MOST_BYTES
    _try(target, data)


@pytest.mark.parametrize("name", kept())
def test_what_was_found_stays_mended(name):
    _try(*kept()[name])


def test_the_same_seed_gives_the_same_inputs():
    target = all_targets()["safetensors"]
    first, second = (target.inputs(5) for _ in range(2))
    assert [next(first) for _ in range(50)] == [next(second) for _ in range(50)]
