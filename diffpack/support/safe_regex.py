r"""Regular expressions that come from files, matched without backtracking: none of them can hang a program.

What Python's `re` answers for names, of the part of its language that names are picked with: letters, `.`, classes,
groups, `|`, `* + ? {m,n}` (lazy or not is the same here), `\d \w \s` and their negations, `^ $ \b`, and looking
ahead. All places a part can end at are followed at once, so time grows with the length of the name, squared, times
that of the expression (Thompson 1968; Cox, "Regular Expression Matching Can Be Simple And Fast", 2007).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from diffpack.errors import UsageError

_MOST_LETTERS = 2_000  # of an expression; those for modules have some tens
_MOST_GROUPS = 40  # one within another: what the parser recurses into
_CLASSES: dict[str, Callable[[str], bool]] = {
    "d": str.isdecimal, "w": lambda letter: letter.isalnum() or letter == "_", "s": str.isspace,
}  # fmt: skip
_CONTROLS = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v"}

Places = frozenset[int]
Part = Callable[[str, Places], Places]
"""A part of an expression: from where it may begin in a text to where it may end."""


@dataclass(frozen=True)
class Pattern:
    """An expression that is understood."""

    part: Part

    def matches(self, text: str) -> bool:
        """Tell whether the whole text is what the expression means (`re.fullmatch`)."""
        return len(text) in self.part(text, frozenset([0]))


def compile_pattern(text: str) -> Pattern:
    """Read an expression. Raises `UsageError` if it is none, too long, or has what is not known here."""
    if len(text) > _MOST_LETTERS:
        raise UsageError(f"a regular expression of {len(text)} letters; {_MOST_LETTERS} are the most")
    parser = _Parser(text)
    part = parser.choice()
    if parser.at < len(text):
        raise parser.wrong("a ) that closes nothing")
    return Pattern(part)


class _Parser:
    """Reads an expression from left to right, `at` is the next letter."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.depth = 0
        self.ahead = False

    def wrong(self, what: str) -> UsageError:
        return UsageError(f"the regular expression {self.text!r}, letter {self.at + 1}: {what}")

    def next(self) -> str:
        """Take a letter; "" at the end."""
        letter = self.text[self.at : self.at + 1]
        self.at += 1 if letter else 0
        return letter

    def take(self, word: str) -> bool:
        """Take a word if it is next."""
        found = self.text.startswith(word, self.at)
        self.at += len(word) if found else 0
        return found

    def choice(self) -> Part:
        parts = [self.sequence()]
        while self.take("|"):
            parts.append(self.sequence())
        return parts[0] if len(parts) == 1 else partial(_either, tuple(parts))

    def sequence(self) -> Part:
        parts = []
        while self.at < len(self.text) and self.text[self.at] not in "|)":
            parts.append(self.repeated(self.atom()))
        return partial(_after_another, tuple(parts))

    def repeated(self, part: Part) -> Part:
        fewest, most = 1, 1
        if self.take("*"):
            fewest, most = 0, -1
        elif self.take("+"):
            fewest, most = 1, -1
        elif self.take("?"):
            fewest, most = 0, 1
        elif (bounds := self._bounds()) is not None:
            fewest, most = bounds
        else:
            return part
        if self.take("+"):
            raise self.wrong("possessive repeats are not known here")
        self.take("?")  # lazy: the same places, in another order
        if self.at < len(self.text) and (self.text[self.at] in "*+?"):
            raise self.wrong("a repeat of a repeat")
        return partial(_repeated, part, fewest, most)

    def _bounds(self) -> tuple[int, int] | None:
        """The numbers of `{m}`, `{m,}`, `{,n}` or `{m,n}`; other braces are letters, as for `re`."""
        end = self.text.find("}", self.at)
        if not self.text.startswith("{", self.at) or end < 0:
            return None
        low, comma, high = self.text[self.at + 1 : end].partition(",")
        digits = low + high
        if not (digits.isascii() and digits.isdecimal()) and not (comma and not digits):
            return None
        self.at = end + 1
        fewest = int(low or "0")
        most = (int(high) if high else -1) if comma else fewest
        if most != -1 and most < fewest:
            raise self.wrong("fewer at most than at least")
        return fewest, most

    def atom(self) -> Part:
        letter = self.next()
        if letter == "(":
            return self.group()
        if letter == "[":
            return partial(_letter, self.letters())
        if letter == "\\":
            return self.escape()
        if letter in "*+?":
            raise self.wrong("nothing to repeat")
        simple: dict[str, Part] = {".": partial(_letter, lambda other: other != "\n"), "^": _begin, "$": _end}
        return simple.get(letter) or partial(_letter, letter.__eq__)

    def group(self) -> Part:
        self.depth += 1
        if self.depth > _MOST_GROUPS:
            raise self.wrong(f"more than {_MOST_GROUPS} groups within each other")
        ahead, no = self.take("?="), False
        if not ahead and self.take("?!"):
            ahead = no = True
        if ahead:
            if self.ahead:
                raise self.wrong("looking ahead within looking ahead is not known here")
            self.ahead = True
        elif self.take("?P<") or (
            self.text.startswith("?<", self.at) and self.text[self.at + 2 : self.at + 3].isalpha()
        ):
            self.at = self.text.find(">", self.at) + 1 or len(self.text)
        elif not self.take("?:") and self.text.startswith("?", self.at):
            raise self.wrong(f"({self.text[self.at : self.at + 3]} is not known here")
        part = self.choice()
        if not self.take(")"):
            raise self.wrong("a ( that is not closed")
        self.depth -= 1
        if not ahead:
            return part
        self.ahead = False
        return partial(_looked_ahead, part, no)

    def escape(self) -> Part:
        letter = self.next()
        anchors: dict[str, Part] = {"A": _begin, "Z": _end, "b": partial(_border, True), "B": partial(_border, False)}
        return anchors.get(letter) or partial(_letter, self.escaped(letter))

    def escaped(self, letter: str) -> Callable[[str], bool]:
        """The letters that a backslash and a letter mean."""
        if letter.lower() in _CLASSES:
            known = _CLASSES[letter.lower()]
            return known if letter.islower() else lambda other: not known(other)
        if not letter or (letter.isalnum() and letter not in _CONTROLS):
            raise self.wrong(f"\\{letter} is not known here")
        return _CONTROLS.get(letter, letter).__eq__

    def letters(self) -> Callable[[str], bool]:
        """The letters that a class means, behind its `[`."""
        negated, tests, first = self.take("^"), [], True
        while first or not self.take("]"):
            first, letter = False, self.next()
            if not letter:
                raise self.wrong("a [ that is not closed")
            low = letter
            if letter == "\\":
                low = self.next()
                if low.isalnum():
                    tests.append(self.escaped(low))
                    continue
            if self.text.startswith("-", self.at) and self.text[self.at + 1 : self.at + 2] not in ("", "]"):
                self.at += 1
                high = self.next()
                high = self.next() if high == "\\" else high
                if high < low:
                    raise self.wrong("a range that ends before it begins")
                tests.append(partial(_between, low, high))
            else:
                tests.append(low.__eq__)
        return lambda other: any(test(other) for test in tests) != negated


def _between(low: str, high: str, letter: str) -> bool:
    return low <= letter <= high


def _letter(test: Callable[[str], bool], text: str, places: Places) -> Places:
    return frozenset(at + 1 for at in places if at < len(text) and test(text[at]))


def _either(parts: tuple[Part, ...], text: str, places: Places) -> Places:
    return frozenset().union(*(part(text, places) for part in parts))


def _after_another(parts: tuple[Part, ...], text: str, places: Places) -> Places:
    for part in parts:
        places = part(text, places)
    return places


def _repeated(part: Part, fewest: int, most: int, text: str, places: Places) -> Places:
    for _ in range(fewest):
        before, places = places, part(text, places)
        if places == before:  # from here on it stays so
            break
    reached, new, count = places, places, fewest
    while new and count != most:
        new = part(text, new) - reached
        reached |= new
        count += 1
    return reached


def _looked_ahead(part: Part, no: bool, text: str, places: Places) -> Places:
    return frozenset(at for at in places if bool(part(text, frozenset([at]))) != no)


def _begin(_text: str, places: Places) -> Places:
    return places & {0}


def _end(text: str, places: Places) -> Places:
    return places & {len(text)}


def _border(wanted: bool, text: str, places: Places) -> Places:
    """Where a word begins or ends."""
    word = _CLASSES["w"]
    inside = [False, *(word(letter) for letter in text), False]
    return frozenset(at for at in places if (inside[at] != inside[at + 1]) == wanted)
