"""An HTML page as tests look at it: its elements, checked to be closed in the order they were opened."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

_EMPTY = frozenset({"meta", "link", "input", "br", "wbr"})
_CLOSED_AT_ONCE = frozenset({"rect", "path"})
_NO_TEXT = frozenset({"script", "style"})


@dataclass
class Element:
    """An element with its attributes, and all text inside it."""

    tag: str
    attributes: dict[str, str]
    texts: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.texts)


class Page(HTMLParser):
    """All elements of a page, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[Element] = []
        self._open: list[Element] = []
        self.feed(text)
        self.close()
        assert self._open == [], "elements that are not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._add(tag, attrs)
        if tag not in _EMPTY:
            self._open.append(self.elements[-1])

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in _CLOSED_AT_ONCE, tag
        self._add(tag, attrs)

    def _add(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        self.elements.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open, tag
        assert self._open.pop().tag == tag, tag

    def handle_data(self, data: str) -> None:
        hidden = bool(self._open) and self._open[-1].tag in _NO_TEXT
        for element in self._open[-1:] if hidden else self._open:
            element.texts.append(data)

    def all(self, tag: str, **wanted: str) -> list[Element]:
        """The elements with these attributes (`data_v` for `data-v`)."""
        return [
            item
            for item in self.elements
            if item.tag == tag
            and all(item.attributes.get(key.replace("_", "-")) == value for key, value in wanted.items())
        ]

    def one(self, tag: str, **wanted: str) -> Element:
        (found,) = self.all(tag, **wanted)
        return found

    @property
    def text(self) -> str:
        """Everything a reader can find: texts and titles."""
        titles = [item.attributes["title"] for item in self.elements if "title" in item.attributes]
        return "\n".join([self.elements[0].text, *titles])
