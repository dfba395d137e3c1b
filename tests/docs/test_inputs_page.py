"""The page of inputs: a line for each frozen case, and none without one."""

from __future__ import annotations

import json
import re

import pytest

from tests.tools.input_oracles import INPUTS, PAGE, TENSORS, VERSIONS, lines

MOST_BYTES = 1_500_000
"""What all cases together may take: tiny models."""
LINES = lines()


def test_every_frozen_case_has_its_line_and_every_line_its_case():
    named = [line.case for line in LINES]
    assert len(named) == len(set(named))
    assert set(named) == {path.name for path in INPUTS.iterdir()}
    assert PAGE.count("\n| `") == len(LINES)


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.case)
def test_a_line_says_what_its_case_is(line):
    versions = json.loads((INPUTS / line.case / VERSIONS).read_text())
    tool, version = next(iter(versions.items()))
    assert line.tool == f"{tool} {version.split('+')[0]}"
    assert line.read == ("yes" if (INPUTS / line.case / TENSORS).exists() else "no")
    if line.read == "yes":
        assert line.written == "yes" or re.fullmatch(r"as `\.\w+`", line.written)
        assert line.back in ("all", "weights", "tensors")
    else:
        assert line.written == line.back == "-"
        assert line.remarks, "it says what to do instead"


def test_the_frozen_files_are_small():
    assert sum(path.stat().st_size for path in INPUTS.rglob("*") if path.is_file()) < MOST_BYTES
