"""The site builds, every link in it leads somewhere, and a reader's browser fetches nothing from elsewhere."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("mkdocs")
pytest.importorskip("material")
pytest.importorskip("mkdocstrings")

import diffpack
from diffpack import errors
from tests.tools import ROOT


def hook(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


outside_files, reference_pages = hook("outside_files"), hook("reference_pages")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


class Fetched(HTMLParser):
    """What a browser fetches with a page: scripts, styles, pictures; not what a reader may click."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "a":
            self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]


def test_pages_fetch_nothing_from_elsewhere(site: Path):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        fetched = Fetched(page.read_text()).addresses
        assert fetched, page
        assert not [address for address in fetched if "//" in address], page
    for style in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", style.read_text()), style


def test_what_is_fetched_is_there(site: Path):
    for page in site.rglob("*.html"):
        for address in Fetched(page.read_text()).addresses:
            path = address.partition("#")[0].partition("?")[0]
            folder = site if page.name == "404.html" else page.parent
            if path and not path.startswith("data:"):
                assert (folder / path.lstrip("/")).exists(), (page, address)


def test_what_pages_link_to_outside_of_docs_is_on_the_site(site: Path):
    """Files by their path under repository/, Markdown and Python as pages, folders as lists."""
    found = set()
    for page in (ROOT / "docs").rglob("*.md"):
        for link in outside_files.links(page.read_text()):
            path = outside_files.joined(page.relative_to(ROOT).as_posix(), link)
            if not path.startswith("docs/"):
                place = outside_files.place_on_site(path, ROOT)
                found.add(place)
                page_name = re.sub(r"\.md$", ".html", re.sub(r"\bREADME\.md$", "index.md", place))
                assert (site / page_name).is_file(), (page, link)
    assert {"repository/spec/format.md", "repository/benchmarks/results/size.csv"} <= found
    assert {"repository/examples/serve.py.md", "repository/benchmarks/size/peers/index.md"} <= found
    assert 'href="aligned.py.html"' in (site / "repository/benchmarks/size/peers/index.html").read_text()


def test_every_public_name_has_its_place_in_the_reference(site: Path):
    page = (site / "reference" / "diffpack.html").read_text()
    for name in diffpack.__all__:
        assert f'id="diffpack.{name}"' in page, name
    page = (site / "reference" / "diffpack.errors.html").read_text()
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, Exception):
            assert f'id="diffpack.errors.{name}"' in page
    for package, names in (("live", ("TaskSwitcher", "Steps", "apply_")), ("train", ("SparseTuner", "train"))):
        page = (site / "reference" / f"diffpack.{package}.html").read_text()
        for name in names:
            assert f'id="diffpack.{package}.{name}"' in page


def test_links_are_led_elsewhere_but_not_those_in_code():
    text = "[a](../x.md#y) `[b](../x.md)` [c](https://x.md) [d](#e)\n```sh\n[f](../x.md)\n```\n![g](g.svg)"
    assert list(outside_files.links(text)) == ["../x.md", "g.svg"]
    led = outside_files.relinked(text, lambda link: f"<{link}>")
    assert led == text.replace("(../x.md#y)", "(<../x.md>#y)").replace("(g.svg)", "(<g.svg>)")


def test_brackets_behind_brackets_are_no_references():
    text = "w[k][i], [L4] [L6], `w[k][i]`\n\n    w[k][i]\n"
    assert outside_files.unreferenced(text) == "w[k]\\[i], [L4] \\[L6], `w[k][i]`\n\n    w[k][i]\n"


def test_places_lead_there_and_back():
    for path, place in {
        "docs/jobs/merge.md": "jobs/merge.md",
        "spec/format.md": "repository/spec/format.md",
        "examples/serve.py": "repository/examples/serve.py.md",
        "benchmarks/size/peers": "repository/benchmarks/size/peers/index.md",
        "benchmarks/results/size.csv": "repository/benchmarks/results/size.csv",
    }.items():
        assert outside_files.place_on_site(path, ROOT) == place
        if path.endswith(".md"):
            assert outside_files.place_in_repository(place) == path


def test_a_reference_page_has_what_a_package_offers_calls_first():
    page = reference_pages.render("diffpack", ROOT)
    named = re.findall(r"^::: diffpack\.(\w+)$", page, re.MULTILINE)
    assert sorted(named) == diffpack.__all__
    assert named.index("verify") < named.index("Applied")
    assert "\n::\n" not in page
