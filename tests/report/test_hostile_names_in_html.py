"""Names of files and tensors, recipes and reasons are text on the page, whatever they are."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re

import pytest

from diffpack.errors import CorruptFileError
from diffpack.report.contents.histograms import DiffHistograms
from diffpack.report.html.page import page
from diffpack.report.stats import Problem, Stats
from tests.tools.pages import Page
from tests.tools.reports import HOSTILE, QUOTED, TURNED, counted, made_up_overlaps

BIDI = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069]")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Stats:
    """Diffs where every text that comes from elsewhere is hostile."""
    here = counted(tmp_path_factory.mktemp("hostile") / "diffs", 1)
    bad = f"{HOSTILE}{QUOTED}{TURNED}"
    diffs = [dataclasses.replace(item, base_name=bad, recipe={bad: bad}) for item in here.diffs]
    return Stats(tuple(diffs), (*here.problems, Problem(bad, None, CorruptFileError(bad))))


@pytest.fixture(scope="module")
def whole(found: Stats) -> str:
    why = [DiffHistograms(item.name, None, None, f"{HOSTILE}{TURNED}") for item in found.diffs]
    return page(found, overlaps=made_up_overlaps(found), histograms=why, title=f"A {HOSTILE} title")


def test_they_make_no_elements_and_no_attributes(whole: str):
    assert Page(HOSTILE).all("script"), "what is looked for is found where it is"
    known = {"script": 1, "application/json": 1}
    page_of = Page(whole)
    kinds = [item.attributes.get("type", "script") for item in page_of.all("script")]
    assert {kind: kinds.count(kind) for kind in kinds} == known
    names = {name for item in page_of.elements for name in item.attributes}
    assert not [name for name in names if name.startswith("on") or name in ("src", "srcdoc", "action")]
    assert {item.tag for item in page_of.elements}.isdisjoint({"img", "iframe", "object", "embed", "base", "form"})


def test_they_can_be_read(whole: str):
    text = Page(whole).text
    assert text.count(HOSTILE) >= 5
    assert QUOTED in text


def test_what_turns_the_direction_of_text_is_written_out(whole: str):
    assert not BIDI.search(whole)
    assert "\\u202e" in whole


def test_a_notebook_escapes_them_too(found: Stats):
    text = found._repr_html_()
    assert not BIDI.search(text)
    assert not Page(text).all("script")
    assert "&lt;script&gt;" in text


def test_only_the_script_of_the_page_may_run(whole: str):
    policy = Page(whole).one("meta", http_equiv="Content-Security-Policy").attributes["content"]
    (script,) = re.findall(r"<script>(.*?)</script>", whole, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_nothing_is_loaded(whole: str):
    for address in re.findall(r"(?:href|src)=\"([^\"]*)\"|url\(([^)]*)\)|@import ([^;]*)", whole):
        assert "".join(address) == "data:," or "".join(address).startswith("#")
    assert not re.search(r"https?:", whole)


def test_data_for_the_script_is_json_that_cannot_end_its_element(whole: str):
    (data,) = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', whole, re.DOTALL)
    assert not set("<>&") & set(data)
    assert set(json.loads(data)) == {"entries", "tasks", "low", "high"}
