"""What `diffpack` offers is listed, and every error is drawn in the tree of errors."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from typing import NamedTuple

import pytest

import diffpack
from diffpack import errors
from tests.tools import ROOT


def test_all_is_complete_and_sorted():
    assert diffpack.__all__ == sorted(diffpack.__all__)
    assert all(getattr(diffpack, name) is not None for name in diffpack.__all__)
    assert set(_typed("diffpack")) == set(diffpack.__all__) - {"__version__"}
    assert len((ROOT / "diffpack" / "__init__.py").read_text().splitlines()) <= 110


@pytest.mark.parametrize("package", ["diffpack", "diffpack.live", "diffpack.signing", "diffpack.train"])
def test_what_is_loaded_when_asked_for_is_what_type_checkers_see(package: str):
    if package != "diffpack":
        pytest.importorskip("torch")
    module = importlib.import_module(package)
    for name, home in _typed(package).items():
        origin = getattr(module, name)
        assert origin is getattr(importlib.import_module(home.module), home.name), name
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        module.nothing  # noqa: B018 - asking is the test


class Home(NamedTuple):
    module: str
    name: str


def _typed(package: str) -> dict[str, Home]:
    """What the top of a package imports, for type checkers too: its name there -> where it is."""
    tree = ast.parse((ROOT / package.replace(".", "/") / "__init__.py").read_text())
    found = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {
        item.asname or item.name: Home(node.module or "", item.name)
        for node in found
        if (node.module or "").startswith("diffpack.") and not (node.module or "").startswith("diffpack.support")
        for item in node.names
    }


def test_every_error_is_drawn_in_the_tree():
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, Exception):
            assert issubclass(kind, errors.DiffpackError)
            assert name in (errors.__doc__ or "")
            drawn = re.search(rf"{name}\b.*exit (\d+)", errors.__doc__ or "")
            assert drawn, name
            assert int(drawn[1]) == kind.exit_code


def test_packages_that_need_torch_are_members_too():
    pytest.importorskip("torch")
    code = "import diffpack, sys; assert 'torch' not in sys.modules; diffpack.live.Version; diffpack.train.SparseTuner"
    subprocess.run([sys.executable, "-c", code], check=True)
