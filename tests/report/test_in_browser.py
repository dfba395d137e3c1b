"""The HTML report in a browser: loads nothing, sorts, filters, prints, fits a phone; axe-core finds nothing in it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from diffpack.report.budget import Budget
from diffpack.report.gate import Gate
from diffpack.report.html.page import page as report
from diffpack.report.html.rendering import share
from diffpack.report.stats import Stats
from tests.tools.reports import counted, made_up_histograms, made_up_overlaps

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PHONE, DESK = 375, 1600
ROWS = "#b0-tasks tr[data-t]"


def chromium() -> str | None:
    """The browser that is there; none is fetched."""
    named = os.environ.get("CHROMIUM")
    return named or next((path for name in NAMES if (path := shutil.which(name))), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = chromium()
    if path is None:
        pytest.skip(f"no Chromium: none of {', '.join(NAMES)} is on the path, and CHROMIUM names none")
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=path)
        yield found
        found.close()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Stats:
    return counted(tmp_path_factory.mktemp("shown") / "diffs", 8)


@pytest.fixture(scope="module")
def file(found: Stats, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report with everything on it."""
    text = report(
        found,
        budget=Budget.of("1MB", found),
        exceeded=Gate.of("2kB", None).exceeded(found),
        overlaps=made_up_overlaps(found),
        histograms=made_up_histograms(found),
    )
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(text, "utf-8")
    return path


Show = Callable[..., Any]


@pytest.fixture
def show(browser: Any, file: Path) -> Iterator[Show]:
    """Open the report; whatever it writes to the console, shows or asks for fails the test."""
    opened, heard = [], []

    def started(width: int = DESK, **settings: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, **settings)
        opened.append(context)
        shown = context.new_page()
        shown.on("console", lambda message: heard.append(f"console: {message.text}"))
        shown.on("pageerror", lambda error: heard.append(f"error: {error}"))
        shown.on("dialog", lambda dialog: (heard.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        shown.on("request", lambda request: request.url == file.as_uri() or heard.append(f"request: {request.url}"))
        shown.goto(file.as_uri())
        return shown

    yield started
    for context in opened:
        context.close()
    assert heard == []


def column(shown: Any, name: str) -> list[float]:
    """The numbers of a column of tasks, from top to bottom."""
    heads = shown.locator("#b0-tasks thead th").all_inner_texts()
    at = heads.index(name)
    return shown.evaluate(  # type: ignore[no-any-return]
        "([rows, at]) => Array.from(document.querySelectorAll(rows), row => Number(row.cells[at].dataset.v))",
        [ROWS, at],
    )


def latest(shown: Any, name: str) -> list[float]:
    """The same of the latest version of each model."""
    heads = shown.locator("#b0-tasks thead th").all_inner_texts()
    return shown.evaluate(  # type: ignore[no-any-return]
        "at => Array.from(document.querySelectorAll('#b0-tasks tbody'), body => Number(body.rows[body.rows.length - 1]"
        ".cells[at].dataset.v))",
        heads.index(name),
    )


def visible(shown: Any, rows: str = ROWS) -> int:
    return shown.evaluate(  # type: ignore[no-any-return]
        "rows => Array.from(document.querySelectorAll(rows)).filter(row => row.offsetHeight > 0).length", rows
    )


def test_it_asks_for_nothing_and_says_nothing(show: Show, found: Stats):
    shown = show()
    shown.mouse.wheel(0, 20_000)
    for item in shown.locator("summary").all():
        item.click()
    assert shown.title() == "Storage report"
    assert visible(shown) == len(found.families[0].members)


def test_a_click_on_a_heading_sorts(show: Show):
    shown = show()
    before = column(shown, "File")
    head = shown.locator("#b0-tasks th", has=shown.get_by_role("button", name="File", exact=True))
    assert head.get_attribute("aria-sort") == "none"
    for order in ("descending", "ascending"):
        head.get_by_role("button").click()
        assert head.get_attribute("aria-sort") == order
        assert latest(shown, "File") == sorted(latest(shown, "File"), reverse=order == "descending")
        assert sorted(column(shown, "File")) == sorted(before)
        assert shown.get_by_text(f"Sorted by File, {order}").count() == 1
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "none"
    assert column(shown, "File") == before


def test_headings_are_reached_and_pressed_by_keyboard(show: Show):
    shown = show()
    shown.get_by_label("Filter tasks").first.focus()
    pressed = []
    for _ in range(12):
        shown.keyboard.press("Tab")
        if shown.evaluate("document.activeElement.closest('th') !== null"):
            pressed.append(shown.evaluate("document.activeElement.textContent"))
        if pressed[-1:] == ["Density"]:
            break
    assert pressed[:3] == ["Task", "Changed entries", "Density"]
    for key, order in (("Enter", "descending"), ("Space", "ascending")):
        shown.keyboard.press(key)
        assert shown.locator("#b0-tasks th[aria-sort]").nth(2).get_attribute("aria-sort") == order
        assert latest(shown, "Density") == sorted(latest(shown, "Density"), reverse=order == "descending")


def test_only_one_column_is_sorted_by(show: Show):
    shown = show()
    for name in ("File", "Density", "Result"):
        shown.locator("#b0-tasks").get_by_role("button", name=name, exact=True).click()
    sorted_by = shown.locator("#b0-tasks th:is([aria-sort=ascending], [aria-sort=descending])")
    assert sorted_by.all_inner_texts() == ["Result"]


def test_a_chain_stays_together(show: Show):
    shown = show()
    for name in ("File", "Density", "Task", "Result"):
        shown.locator("#b0-tasks").get_by_role("button", name=name, exact=True).click()
        text = "".join(shown.locator(f"{ROWS} th bdi").all_text_contents())
        assert "chain0.dpkchain1.dpkchain2.dpk" in text
        assert "root.dpkbranch0.dpkbranch1.dpk" in text


def test_the_filter_shows_what_matches_everywhere(show: Show, found: Stats):
    shown = show()
    field, count = shown.get_by_label("Filter tasks").first, shown.locator("#b0-count")
    all_rows = len(found.families[0].members)
    field.fill("CHAIN")
    assert count.inner_text() == f"3 of {all_rows}"
    for place in ("#b0-tasks", "#b0-parts", "#b0-results"):
        assert visible(shown, f"{place} tr[data-t]") == 3
    assert shown.locator("#b0-tasks tr.model:visible").count() == 1
    field.fill("lossy error")
    assert count.inner_text() == f"1 of {all_rows}"
    field.fill("no such task")
    assert count.inner_text() == f"0 of {all_rows}"
    assert visible(shown) == 0
    field.press("Escape")
    assert field.input_value() == ""
    assert visible(shown) == all_rows
    assert shown.locator("#b0-count").get_attribute("for") == field.get_attribute("id")


def test_the_density_of_one_task_can_be_chosen(show: Show, found: Stats):
    shown = show()
    choice = shown.get_by_label("Shown").first
    together = shown.locator("#b0-heat td").all_text_contents()
    members = [member.diff for member in found.families[0].members]
    for at in (0, len(members) - 1):
        choice.select_option(str(at))
        cell = shown.locator("#b0-heat tr", has_text="embed").first.locator("td[data-c]").first
        (tensor,) = [item for item in members[at].tensors if item.name == "embed"]
        assert cell.inner_text() == share(tensor.density)
        assert cell.get_attribute("title") == f"{tensor.changed:,} of {tensor.entries:,} entries"
    choice.select_option("")
    assert shown.locator("#b0-heat td").all_text_contents() == together


def test_shares_are_written_as_on_the_rest_of_the_page(show: Show):
    shown = show()
    code = re.search(r"function share\(fraction\) \{.*?\n  \}", shown.content(), re.DOTALL)
    assert code is not None
    numbers = [0, 1e-9, 1e-5, 0.00099, 0.000995, 0.00123, 0.0312, 0.09994, 0.0999, 0.1234, 0.9994, 0.9996, 1.0]
    assert shown.evaluate(f"numbers => {{ {code[0]}; return numbers.map(share); }}", numbers) == [*map(share, numbers)]


def test_print_has_all_rows_and_no_controls(show: Show, found: Stats):
    shown = show()
    shown.get_by_label("Filter tasks").first.fill("no such task")
    shown.emulate_media(media="print")
    assert visible(shown) == len(found.families[0].members)
    assert not shown.get_by_label("Filter tasks").first.is_visible()
    assert not shown.locator("nav").is_visible()
    printed = shown.pdf(prefer_css_page_size=True, tagged=True)
    assert printed.startswith(b"%PDF")
    rows = shown.locator("tr").count()
    assert printed.count(b"/S /TR\n") >= rows, "also of tables that are folded on the screen"


@pytest.mark.parametrize("width", [320, PHONE, 768, 1024, DESK])
def test_the_page_never_scrolls_sideways(show: Show, width: int):
    shown = show(width)
    for item in shown.locator("summary").all():
        item.click()
    assert shown.evaluate("document.documentElement.scrollWidth") <= width


def test_wide_tables_scroll_inside_a_region_that_takes_the_focus(show: Show):
    shown = show(PHONE)
    region = shown.get_by_role("region", name=re.compile("Tasks of")).first
    assert region.evaluate("node => node.scrollWidth > node.clientWidth")
    region.focus()
    shown.keyboard.press("ArrowRight")
    shown.wait_for_function("() => document.activeElement.scrollLeft > 0")


def test_dark_is_dark(show: Show):
    def shade(scheme: str) -> int:
        color = show(color_scheme=scheme).evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(map(int, re.findall(r"\d+", color)[:3]))

    assert shade("dark") < 150 < 600 < shade("light")


def test_motion_is_reduced_where_that_is_asked_for(show: Show):
    behaviour = "getComputedStyle(document.documentElement).scrollBehavior"
    assert show(reduced_motion="reduce").evaluate(behaviour) == "auto"
    assert show(reduced_motion="no-preference").evaluate(behaviour) == "smooth"


def test_the_first_stop_leads_past_the_contents(show: Show):
    shown = show()
    shown.keyboard.press("Tab")
    assert shown.evaluate("document.activeElement.textContent") == "Skip to the report"
    shown.keyboard.press("Enter")
    shown.wait_for_function("() => document.activeElement.id === 'main'")


def test_without_scripts_everything_is_there(show: Show, found: Stats):
    shown = show(java_script_enabled=False)
    assert shown.locator(ROWS).filter(visible=True).count() == len(found.families[0].members)
    assert shown.get_by_role("button").count() == 0
    assert not shown.locator("#b0-filter").is_visible()
    assert not shown.locator("#b0-task").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, DESK])
def test_axe_finds_no_violations(show: Show, width: int, scheme: str):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    shown = show(width, color_scheme=scheme)
    for item in shown.locator("summary").all():
        item.click()
    results = axe.Axe().run(shown)
    assert results.violations_count == 0, results.generate_report()
    assert len(results.response["passes"]) > 20
