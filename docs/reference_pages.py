"""A hook of mkdocs: a reference page for each public package, made of its docstrings by mkdocstrings.

What a package offers is read from its source, which is not run: `__all__`, or all that is defined there.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

FOLDER = "reference/"
"""Where the pages stand on the site; the navigation of mkdocs.yml says which packages have one."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    root = Path(config.config_file_path).parent
    for package in re.findall(rf"{FOLDER}([\w.]+)\.md", str(config.nav)):
        files.append(File.generated(config, f"{FOLDER}{package}.md", content=render(package, root)))
    return files


def render(package: str, root: Path) -> str:
    """The page of a package: what it says of itself, then everything it offers."""
    place = root / package.replace(".", "/")
    tree = ast.parse((place / "__init__.py" if place.is_dir() else place.with_suffix(".py")).read_text())
    about = re.sub(r"^::\n\n", "", ast.get_docstring(tree) or "", flags=re.MULTILINE)
    return "\n\n".join([f"# {package}", about, *(f"::: {package}.{name}" for name in offered(tree))]) + "\n"


def offered(tree: ast.Module) -> list[str]:
    """The names in `__all__`, calls first; without one, all public classes and functions, in their order."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            names: list[str] = ast.literal_eval(node.value)
            return sorted(names, key=lambda name: name[0].isupper())
    defined = [node.name for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))]
    return [name for name in defined if not name.startswith("_")]
