"""The HTML report has every number there is, of the files themselves, and the same diffs give the same bytes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from diffpack.report.budget import Budget
from diffpack.report.document import document
from diffpack.report.gate import Gate
from diffpack.report.html.page import page
from diffpack.report.stats import Stats
from diffpack.support.amounts import percent, times
from tests.tools.pages import Page
from tests.tools.reports import counted, made_up_histograms, made_up_overlaps, make_diffs

DERIVED = {"file_bytes"}
"""Members of `--json` that are the sum of two others."""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Stats:
    return counted(tmp_path_factory.mktemp("report") / "diffs")


@pytest.fixture(scope="module")
def whole(found: Stats) -> str:
    """The page with everything on it."""
    exceeded = Gate.of("5kB", "1kB").exceeded(found)
    return page(
        found,
        budget=Budget.of("1MB", found),
        exceeded=exceeded,
        overlaps=made_up_overlaps(found),
        histograms=made_up_histograms(found),
    )


def leaves(value: object, name: str = "") -> Iterator[tuple[str, int | float | str]]:
    """Every number and text of a document, with the name of its member."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, key)
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item, name)
    elif isinstance(value, int | float | str) and not isinstance(value, bool) and name not in DERIVED:
        yield name, value


def written(value: int | float | str) -> list[str]:
    """The ways the page may write a number."""
    if isinstance(value, str):
        return [value, value.encode("unicode_escape").decode()]
    if isinstance(value, int):
        return [f"{value:,}", f"{value:,} bytes"]
    return [percent(value), times(value), f"{value:.1f}", f"{value:.2g}"]


def test_every_number_of_the_document_is_on_the_page(found: Stats, whole: str):
    rows = document(found, budget=Budget.of("1MB", found), exceeded=Gate.of("5kB", "1kB").exceeded(found))
    text = Page(whole).text
    words = set(re.findall(r"[<>]?[\d,.]+(?: [%x])?", text))
    for name, value in leaves(msgspec.to_builtins(rows)):
        if isinstance(value, str):
            assert any(item in text for item in written(value)), (name, value)
        elif value and name != "depth":
            assert words & {item.removesuffix(" bytes") for item in written(value)}, (name, value)


def test_bytes_are_those_of_the_files(found: Stats, whole: str):
    cells = [item for item in Page(whole).all("td") if item.attributes.get("title", "").endswith("of the base")]
    assert sorted(int(item.attributes["data-v"]) for item in cells) == sorted(
        Path(item.name).stat().st_size for item in found.diffs
    )


def test_the_parts_of_each_file_add_up_to_it(found: Stats, whole: str):
    section = whole.split("Bytes by part</h3>", 1)[1].split("</section>", 1)[0]
    rows = re.findall(r'<tr data-t="\d+">.*?</tr>', section)
    assert len(rows) == len(found.families[0].members)
    for row in rows:
        *parts, total = map(int, re.findall(r'<td class="n" data-v="(\d+)"', row))
        assert sum(parts) == total == sum(map(int, re.findall(r"flex-grow:(\d+)", row)))


def test_a_chain_is_one_model_with_a_history(whole: str):
    text = Page(whole).text
    assert "One model with a history: 3 versions" in text
    assert "2 models with a history in common: 3 versions" in text
    straight, branching = Page(whole).all("ol", **{"class": "history"})
    assert [re.findall(r"(\w+)\.dpk", item.text) for item in (straight, branching)] == [
        ["chain0", "chain1", "chain2"],
        ["root", "branch0", "branch1"],
    ]
    assert len(Page(whole).all("ol")) == 4, "each branch begins a list of its own"


def test_a_damaged_diff_is_a_row_that_says_so(whole: str):
    assert re.search(r"1 diff not counted.*damaged\.<wbr>dpk.*the manifest is damaged", whole, re.DOTALL)


def test_what_is_over_the_limit_is_listed_and_marked(found: Stats, whole: str):
    exceeded = Gate.of("5kB", "1kB").exceeded(found)
    assert 0 < len(exceeded) < len(found.diffs)
    assert whole.count('<span class="tag bad">') == len(exceeded) - 1
    assert "All diffs together" in whole


def test_a_budget_says_what_is_left_and_what_is_missing(found: Stats):
    used = found.base_bytes + found.nbytes
    left = Page(page(found, budget=Budget.of(used + 1234, found)))
    assert "1,234 bytes" in left.text
    assert len([item for item in left.all("rect") if item.attributes.get("class") in ("base", "t0", "t1")]) == len(
        found.diffs
    ) + len(found.families)
    over = Page(page(found, budget=Budget.of(used - 1234, found))).text
    assert "overdrawn by 1.23 kB" in over
    assert "too many" in over


def test_without_counted_tensors_it_says_how_to_count_them(tmp_path: Path):
    text = page(counted(tmp_path / "diffs", 1, tensors=False))
    assert "diffpack stats --tensors --html FILE" in text
    assert 'class="heat"' not in text
    assert "≤" in text


def test_nothing_asked_for_is_not_there(found: Stats):
    text = page(found)
    for what in ("Budget</h2>", "Overlap between", "Sizes of changes", "Over the limit"):
        assert what not in text


def test_diffs_that_all_are_damaged_still_give_a_page(found: Stats):
    text = Page(page(Stats((), found.problems), budget=Budget.of("1MB", found))).text
    assert "1 diff not counted" in text
    assert "No diffs" in text


def test_all_references_lead_somewhere(whole: str):
    found = Page(whole)
    ids = [item.attributes["id"] for item in found.elements if "id" in item.attributes]
    assert len(ids) == len(set(ids))
    named = [
        name
        for item in found.elements
        for key in ("for", "aria-labelledby", "aria-describedby")
        for name in item.attributes.get(key, "").split()
    ]
    named += [item.attributes["href"][1:] for item in found.all("a")]
    assert named
    assert set(named) <= set(ids)


def test_headings_are_in_order(whole: str):
    levels = [int(item.tag[1]) for item in Page(whole).elements if re.fullmatch("h[1-6]", item.tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_the_same_diffs_give_the_same_bytes(tmp_path: Path):
    make_diffs(tmp_path / "diffs", 2)
    code = (
        "import sys, hashlib; from diffpack.report.stats import stats; from diffpack.report.html.page import page; "
        "print(hashlib.sha256(page(stats(sys.argv[1], keep_going=True)).encode()).hexdigest())"
    )
    made = {
        subprocess.run(
            [sys.executable, "-c", code, tmp_path / "diffs"],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(made) == 1


def test_one_diff_alone_is_shown(found: Stats):
    text = Page(page(Stats(found.diffs[:1]))).text
    assert "1 diff of 1 base" in text
    assert "Filter tasks" not in text


def test_a_notebook_shows_the_summary(found: Stats):
    shown = Page(found._repr_html_())
    assert found.diffs[0].name.rpartition("/")[2].partition("<")[0] in shown.text
    assert "1 diff could not be counted" in shown.text
    assert {item.tag for item in shown.elements}.isdisjoint({"script", "style", "link", "img"})
    many = Stats(found.diffs * 2)
    assert f"and {2 * len(found.diffs) - 20} more diffs" in Page(many._repr_html_()).text
    assert "No diffs." in Stats(())._repr_html_()
