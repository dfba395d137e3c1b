"""What `diffpack` offers is listed, and every error is drawn in the tree of errors."""

from __future__ import annotations

import re

import diffpack
from diffpack import errors
from tests.tools import ROOT


def test_all_is_complete_and_sorted():
    public = {name for name in vars(diffpack) if not name.startswith("_")}
    modules = {name for name in public if type(getattr(diffpack, name)).__name__ == "module"}
    assert diffpack.__all__ == sorted(diffpack.__all__)
    assert public - modules == set(diffpack.__all__) - {"__version__"}
    assert len((ROOT / "diffpack" / "__init__.py").read_text().splitlines()) < 80


def test_every_error_is_drawn_in_the_tree():
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, Exception):
            assert issubclass(kind, errors.DiffpackError)
            assert name in (errors.__doc__ or "")
            drawn = re.search(rf"{name}\b.*exit (\d+)", errors.__doc__ or "")
            assert drawn, name
            assert int(drawn[1]) == kind.exit_code
