"""Opening, counting and verifying a file costs what its bytes explain, whatever it says."""

from __future__ import annotations

import subprocess
import sys

import pytest

import diffpack
from diffpack.errors import CorruptFileError, DiffpackError
from diffpack.format import limits
from tests.tools.costly import FILES
from tests.tools.forged import forged
from tests.tools.models import model, tune

MOST_SECONDS, MOST_MEGABYTES = 2, 256
ROOM = 4  # busy machines, instrumented runs: what is looked for took ten to a hundred times as much
LOOKS = """
import re, resource, sys
from pathlib import Path
import diffpack
from diffpack.errors import DiffpackError

data = sys.stdin.buffer.read()
for work in (diffpack.open, lambda raw: diffpack.stats(raw, tensors=False), diffpack.verify):
    try:
        work(data)
    except DiffpackError as error:
        assert len(str(error)) < 3000
used = resource.getrusage(resource.RUSAGE_SELF)
status = Path("/proc/self/status")  # the system's other number has the parent's peak in it
peak = re.search(r"VmHWM:\\s*(\\d+)", status.read_text())[1] if status.exists() else used.ru_maxrss
print(used.ru_utime + used.ru_stime, peak)
"""


@pytest.mark.parametrize("name", FILES)
def test_a_small_file_takes_little(name):
    """Processor time and memory of a process that looks at it in every way, as a multiple of what is promised."""
    data = FILES[name]()
    done = subprocess.run([sys.executable, "-c", LOOKS], input=data, capture_output=True, check=True)
    seconds, kilobytes = map(float, done.stdout.split())
    assert len(data) < 1_200_000
    assert seconds < ROOM * MOST_SECONDS
    assert kilobytes < 1.5 * MOST_MEGABYTES * 1000


def test_ordinary_files_are_far_from_the_limits():
    base = model()
    for choice in ({}, {"profile": "smallest"}, {"values": "f16"}, {"budget": 6000}):
        diff = diffpack.extract(base, tune(base, 0.3), **choice)
        assert sum(chunk.numbers for chunk in diff.chunks) < limits.NUMBERS.free / 100
        assert diff.manifest_bytes < limits.MANIFEST_DECODED.free / 100


def test_a_result_is_bounded_by_its_base_and_its_file(tmp_path):
    base = model()
    diffpack.extract(base, tune(base, 0.2), tmp_path / "t.dpk")
    data = (tmp_path / "t.dpk").read_bytes()
    many = {f"x{at}": "encoder.0.weight" for at in range(120_000)}
    grown = forged(data, lambda manifest: manifest["aliases"].update(many))
    for work in (diffpack.load, lambda base, diff: diffpack.verify(diff, base)):
        with pytest.raises(CorruptFileError, match=r"over the limit of [\d,]+ \[F8\]"):
            work(base, grown)


def test_messages_are_cut():
    message = str(DiffpackError("x" * 300_000_000 + " [F8]"))
    assert len(message) < 3000
    assert message.endswith(" [F8]")
