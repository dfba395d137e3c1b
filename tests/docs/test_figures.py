"""The pages' figures: small, whole, and their words are words."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from tests.tools import ROOT

FIGURES = sorted((ROOT / "docs").glob("*.svg"))
MOST_BYTES = 60_000


@pytest.mark.parametrize("path", FIGURES, ids=lambda path: path.stem)
def test_a_figure_is_small_and_its_text_is_text(path):
    assert path.stat().st_size < MOST_BYTES
    texts = ["".join(node.itertext()) for node in ET.fromstring(path.read_text()).iter() if node.tag.endswith("}text")]  # noqa: S314 - ours
    assert any(re.search("[a-z]{4}", text) for text in texts)
    assert "DejaVuSans-" not in path.read_text()  # letters drawn as shapes have such names


def test_the_figure_of_sizes_shows_the_measured_numbers():
    rows = (ROOT / "benchmarks" / "results" / "foundation.csv").read_text()
    shown = (ROOT / "docs" / "sizes.svg").read_text()
    for what in ("real pair, compact: diff", "real pair, portable: diff", "0.5 % changed, f16: diff"):
        value = float(re.search(rf'^"?{re.escape(what)}"?,([\d.]+)', rows, re.MULTILINE)[1])
        assert f">{value:.3g} %<" in shown
