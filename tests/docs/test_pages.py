"""Every command and every block of Python on the pages of docs/ runs, and prints what the page shows."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.tools import ROOT, page_blocks
from tests.tools.page_blocks import COMMAND, RUN, SHOWN, blocks, pages
from tests.tools.page_worlds import REAL_WORLDS, WORLDS

PAGES = {name: path.read_text() for name, path in pages().items()}
BLOCKS = {name: blocks(text) for name, text in PAGES.items()}
RUNNING = [name for name, found in BLOCKS.items() if any(block.language in RUN for block in found)]
FEWEST = 50
"""Blocks that are run, at least; a page that loses its blocks, or hides them from here, is noticed."""
MOST_CONSOLE = 2
"""Blocks that cannot run here, at most."""
PARAMETERS = [pytest.param(name, marks=pytest.mark.real if name in REAL_WORLDS else ()) for name in RUNNING]


@pytest.mark.parametrize("name", PARAMETERS)
def test_what_stands_on_a_page_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from tests.tools.live_models import quiet

    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "examples").symlink_to(ROOT / "examples")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(folder)
    with quiet():
        if name in REAL_WORLDS:
            scopes = REAL_WORLDS[name](folder, request.getfixturevalue("real_pair")[0])
        else:
            scopes = WORLDS[name](folder)
        count = page_blocks.run(PAGES[name], folder, page_blocks.environment(tmp_path / "bin"), scopes)
    assert count == sum(block.language in RUN for block in BLOCKS[name])


def test_enough_blocks_run_and_few_cannot():
    languages = [block.language for found in BLOCKS.values() for block in found]
    assert sum(language in RUN for language in languages) >= FEWEST
    assert languages.count("console") <= MOST_CONSOLE


def test_pages_that_are_prepared_for_are_there():
    assert {*WORLDS, *REAL_WORLDS} == set(RUNNING)


@pytest.mark.parametrize("name", PAGES)
def test_no_command_hides_from_being_run(name: str):
    for block in BLOCKS[name]:
        assert block.language in (*RUN, *SHOWN), f"{name}:{block.line}: say what it is"
        if block.language != "console":
            lines = () if block.language in RUN else block.text.splitlines()
            assert not [line for line in lines if COMMAND.match(line.strip())], f"{name}:{block.line}"
    for line in page_blocks.unfenced(PAGES[name]).splitlines():
        assert not (line.startswith("    ") and COMMAND.match(line.strip())), (name, line)
    assert "~~~" not in PAGES[name]


def test_the_gates_are_files_that_their_tools_read():
    """A workflow and a list of hooks, which run one and the same command."""
    yaml = pytest.importorskip("yaml")
    workflow, hooks = (yaml.safe_load(block.text) for block in BLOCKS["jobs/cost.md"] if block.language == "yaml")
    steps = workflow["jobs"]["budget"]["steps"]
    assert all(("uses" in step) != ("run" in step) for step in steps)
    (hook,) = hooks["repos"][0]["hooks"]
    assert hooks["repos"][0]["repo"] == "local"
    assert {"id", "name", "entry", "language"} <= set(hook)
    assert re.search(hook["files"], "diffs/sst2.dpk")
    assert hook["entry"] == steps[-1]["run"]
    assert hook["entry"].startswith("diffpack stats diffs/ --fail-over ")


def test_links_lead_somewhere_in_the_repository_too():
    for name, text in PAGES.items():
        for link in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page_blocks.unfenced(text)):
            assert (page_blocks.DOCS / name).parent.joinpath(link).exists(), (name, link)


def test_make_targets_named_on_pages_exist():
    targets = {target for text in PAGES.values() for target in re.findall(r"`make ([\w-]+)", text)}
    assert len(targets) > 8
    for target in sorted(targets):
        subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.parametrize(
    ("shown", "printed", "is_same"),
    [
        ("a 1.00 kB... b", "a 1.01 kB, or so b\n", True),
        ("a 1.00 kB... b", "a 1.05 kB, or so b\n", False),
        ("a 1.00 kB", "a 1.00 MB", False),
        ("1,000 entries", "1,001 entries", True),
        ("result abc53...", "result abc53123", True),
        ("result abc53...", "result abc54123", False),
        ("a", "a\nb", False),
    ],
)
def test_what_is_shown_is_compared_with_what_is_printed(shown: str, printed: str, is_same: bool):
    assert page_blocks.same(shown, printed) is is_same
