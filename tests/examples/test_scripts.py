"""Each example runs by itself, offline, and prints what its docstring shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.tools.example_runs import FOLDER, documented, form, printed

SMALLER: dict[str, list[Any]] = {"thousand_tasks": ["--tasks", 40, "--uses", 200, "--decoded-kb", 100]}
PROMISES = {
    "plain_torch": "the base is back, every bit, where it was",
    "thousand_tasks": "the base is back, every bit",
    "transformers_tasks": "a BertForSequenceClassification: ",
}


@pytest.mark.parametrize("name", PROMISES)
def test_it_prints_what_it_shows(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("torch")
    if name == "transformers_tasks":
        pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    text = printed(name, *SMALLER.get(name, []))
    assert PROMISES[name] in text
    shown, found = form(documented(name)), form(text)
    begin = shown.index(found[0])
    assert shown[begin : begin + len(found)] == found
    assert not list(tmp_path.iterdir())


def test_every_example_is_in_the_table():
    table = (FOLDER / "README.md").read_text()
    names = [path.name for path in FOLDER.glob("*.py")]
    assert names
    for name in names:
        assert f"[{name}]({name})" in table
