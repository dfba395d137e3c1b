"""The order of the rooms: arrows run down, nothing runs in a circle, and importing the library loads nothing heavy."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from benchmarks import shape

TREES = shape.modules()
IMPORTS = shape.imports(TREES)
MOST_ENTRIES = 17
HEAVY = {"torch", "h5py", "scipy", "rich", "matplotlib", "click", "cryptography"}


def test_every_entry_of_the_library_has_its_place_in_the_order():
    rooms = {name for names in shape.ROOMS for name in names}
    entries = {path.name for path in shape.LIBRARY.iterdir()} - {"__pycache__"}
    assert {name.removesuffix(".py") for name in entries} == rooms | {"py.typed"}
    assert len(entries) <= MOST_ENTRIES


def test_only_the_entry_of_the_module_knows_the_command_line():
    knowing = {
        path
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("diffpack_cli"))
        or (isinstance(node, ast.Import) and any(item.name.startswith("diffpack_cli") for item in node.names))
    }
    assert knowing == {"__main__.py"}


def test_no_import_runs_up_or_across():
    assert shape.climbs(IMPORTS) == []


def test_no_imports_run_in_a_circle():
    assert shape.circles(IMPORTS) == []


def test_imports_inside_functions_are_found_too():
    late = {(item.importer, item.imported) for item in IMPORTS if item.late}
    assert ("checkpoints/__init__.py", "checkpoints/hdf5_reader.py") in late
    assert all((item.importer, item.imported) not in late for item in IMPORTS if not item.late)


@pytest.mark.parametrize(
    ("path", "line", "what"),
    [
        ("tensors/info.py", "from diffpack.format import limits", "up"),
        ("extraction/options.py", "import diffpack.algebra.merge", "across"),
        ("diff/diff.py", "def late():\n    from diffpack.result.result import Result", "up, inside a function"),
        ("support/names.py", "class A:\n    def late(self):\n        from diffpack import Diff", "up, in a method"),
        ("support/names.py", "if TYPE_CHECKING:\n    from diffpack.tensors.info import TensorInfo", "up, for types"),
        ("diff/record.py", "from diffpack.diff.diff import Diff", "in a circle"),
        ("diff/record.py", "def late():\n    from diffpack.diff import diff", "in a circle, inside a function"),
    ],
)
def test_a_wrong_import_is_found(path: str, line: str, what: str):
    trees = {**TREES, path: ast.parse(f"{ast.unparse(TREES[path])}\n{line}")}
    found = shape.imports(trees)
    wrong = shape.circles(found) if "circle" in what else shape.climbs(found)
    assert any(path in item for item in wrong), what


@pytest.mark.parametrize("module", ["", ".checkpoints.torch_writer", ".checkpoints.hdf5_writer"])
def test_importing_loads_nothing_heavy(module: str):
    code = f"import diffpack{module}, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert HEAVY.isdisjoint(loaded)


def test_the_library_and_its_command_line_import_torch_only_in_functions():
    for path, tree in TREES.items():
        if path.startswith(("train/", "live/")):
            continue
        for node in tree.body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert HEAVY.isdisjoint(name.partition(".")[0] for name in names), path


def test_long_functions_are_the_ones_with_long_signatures():
    assert {where for _, where in shape.long_functions(TREES)} <= {
        "extraction/extract.py: extract",
        "algebra/merge/merge.py: merge",
    }
