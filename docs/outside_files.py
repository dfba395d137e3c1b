"""A hook of mkdocs: what pages link to that lies outside docs/ comes into the site, and the links lead there.

Pages stay as a repository's browser reads them: `../spec/format.md` is a link that works there. On the site such a
file stands under `repository/`, by its path: Markdown and Python as pages, a folder as the list of its files,
everything else as it is. Pages that are taken in take in what they link to. A link to nothing is left as it is, and
mkdocs complains of it.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File, InclusionLevel

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

DOCS = "docs/"
OUTSIDE = "repository/"
"""Where the site has files from outside docs/."""
UNSEARCHED = "---\nsearch:\n  exclude: true\n---\n\n"
"""Code is no answer to a search for words."""
_CODE = r"(?P<code>^ *```.*?^ *```|^    .*?$|`[^`\n]+`)"
_LINK = re.compile(
    _CODE + r"|(?<=\]\()(?P<path>(?![a-z]+:|#|/)[^)\s#]+)(?P<anchor>#[^)\s]*)?(?=\))",
    re.MULTILINE | re.DOTALL,
)
_BRACKETS = re.compile(_CODE + r"|(?<=\])(?P<gap> ?)\[", re.MULTILINE | re.DOTALL)


def links(markdown: str) -> Iterator[str]:
    """The relative paths that a page links to, outside of code."""
    return (match["path"] for match in _LINK.finditer(markdown) if match["path"])


def relinked(markdown: str, to: Callable[[str], str]) -> str:
    """The page with other paths in its links."""
    return _LINK.sub(lambda match: match[0] if match["code"] else to(match["path"]) + (match["anchor"] or ""), markdown)


def unreferenced(markdown: str) -> str:
    """The page with brackets behind brackets as they are: `w[k][i]` and `[L4] [L6]` are no references."""
    return _BRACKETS.sub(lambda match: match["code"] or rf"{match['gap']}\[", markdown)


def place_in_repository(src_uri: str) -> str:
    """Where a page of the site lies in the repository."""
    return src_uri.removeprefix(OUTSIDE) if src_uri.startswith(OUTSIDE) else DOCS + src_uri


def place_on_site(path: str, root: Path) -> str:
    """Where the site has what lies at a path of the repository."""
    if path.startswith(DOCS):
        return path.removeprefix(DOCS)
    if (root / path).is_dir():
        return f"{OUTSIDE}{path}/index.md"
    return f"{OUTSIDE}{path}.md" if path.endswith(".py") else OUTSIDE + path


def joined(page: str, link: str) -> str:
    """The repository's path of what a page of the repository links to."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), link))


def taken_in(path: str, root: Path, config: MkDocsConfig) -> File:
    """A file or folder of the repository as a file of the site."""
    source, place = root / path, place_on_site(path, root)
    if source.is_dir():
        names = sorted(item.name for item in source.iterdir() if item.is_file())
        text = UNSEARCHED + f"# `{path}/`\n\n" + "".join(f"- [`{name}`]({name})\n" for name in names)
    elif path.endswith(".py"):
        text = UNSEARCHED + f"# `{path}`\n\n````python\n{source.read_text()}````\n"
    elif path.endswith(".md"):
        text = source.read_text()
    else:
        return File.generated(config, place, abs_src_path=str(source), inclusion=InclusionLevel.NOT_IN_NAV)
    return File.generated(config, place, content=text, inclusion=InclusionLevel.NOT_IN_NAV)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    root = Path(config.config_file_path).parent
    wanted = [path for path in _named_in(config.nav or []) if path.startswith(OUTSIDE)]
    pending = [place_in_repository(path) for path in wanted]
    for file in files.documentation_pages():
        pending += [joined(place_in_repository(file.src_uri), link) for link in links(file.content_string)]
    while pending:
        path = pending.pop()
        inside = path.startswith((DOCS, "..")) or files.get_file_from_path(place_on_site(path, root)) is not None
        if inside or not (root / path).exists():
            continue
        file = taken_in(path, root, config)
        files.append(file)
        if file.is_documentation_page():
            home = f"{path}/index.md" if (root / path).is_dir() else path
            pending += [joined(home, link) for link in links(file.content_string)]
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    root, here = Path(config.config_file_path).parent, page.file.src_uri

    def to(link: str) -> str:
        place = place_on_site(joined(place_in_repository(here), link), root)
        known = files.get_file_from_path(place) is not None
        return posixpath.relpath(place, posixpath.dirname(here)) if known else link

    return unreferenced(relinked(markdown, to))


def _named_in(nav: object) -> Iterator[str]:
    """The paths in a nested navigation."""
    if isinstance(nav, str):
        yield nav
    elif isinstance(nav, (list, dict)):
        for item in nav.values() if isinstance(nav, dict) else nav:
            yield from _named_in(item)
