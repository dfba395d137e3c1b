"""How a diff is made: what the user of extract may choose, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real

from diffpack.diff.file_choice import FileChoice
from diffpack.errors import UsageError
from diffpack.extraction.target import Target
from diffpack.format import limits
from diffpack.format.features import PROFILES
from diffpack.format.positions import POSITION_CODINGS, PositionCoding
from diffpack.format.positions.rule_words import Rule
from diffpack.format.values import ValueCoding
from diffpack.format.values.exact import EXACT
from diffpack.format.values.floats import FLOATS
from diffpack.format.values.int8 import QUANTISERS
from diffpack.format.values.summed import SUMMED
from diffpack.tensors.rename_patterns import Renaming

VALUE_CHOICES: dict[str, ValueCoding] = {EXACT.id: EXACT, **FLOATS, **QUANTISERS, SUMMED.id: SUMMED}
"""How values may be stored; byte budgets and target errors have a way of their own."""
RANK = 16
"""Directions of each matrix that are kept where the user asks for low rank and names no number."""
AUTO = "auto"
POSITION_CHOICES = (AUTO, *(coding.id for coding in POSITION_CODINGS.values() if coding.offered))
"""How positions of exact changes may be stored: the smallest way for each tensor, or one for all."""


@dataclass(frozen=True)
class Selection:
    """What the user asked for: at most one of density, top-k and threshold; none keeps every entry that differs.

    With `rule` the base or a seed tells the words, not the changes: of each tensor the fraction `density`, or
    `counts[name]` words; a tensor that is not in `counts` is kept whole.
    """

    density: float | None = None
    top_k: int | None = None
    threshold: float | None = None
    rule: str | None = None
    counts: Mapping[str, int] | None = None

    def __post_init__(self) -> None:
        given = [value for value in (self.density, self.top_k, self.threshold) if value is not None]
        if len(given) > 1:
            raise UsageError("choose one of density, top-k and threshold")
        for value in given:
            if not isinstance(value, Real):
                raise UsageError(f"density, top-k and threshold are numbers, not {value!r}")
        if self.density is not None and not 0 <= self.density <= 1:
            raise UsageError(f"a density is between 0 and 1, not {self.density}")
        if self.top_k is not None and self.top_k < 0:
            raise UsageError(f"top-k is a count, not {self.top_k}")
        if self.threshold is not None and not self.threshold >= 0:
            raise UsageError(f"a threshold is 0 or more, not {self.threshold}")
        self._check_rule()

    def _check_rule(self) -> None:
        if self.rule is None:
            if self.counts is not None:
                raise UsageError("counts of words go with a rule")
            return
        if Rule.parse(self.rule) is None:
            raise UsageError(f"a rule is smallest, largest, or random and a seed (random 0), not {self.rule!r}")
        if self.top_k is not None or self.threshold is not None or (self.density is None) == (self.counts is None):
            raise UsageError("a rule goes with a density, which is that of each tensor")

    def count(self, name: str, words: int) -> int | None:
        """How many words of a tensor the rule chooses; None keeps it whole. Raises `UsageError`."""
        if self.counts is None:
            return round(float(self.density or 0.0) * words)
        count = self.counts.get(name)
        if count is not None and not 0 <= count <= words:
            raise UsageError(f"{name!r} has {words} words; {count} of them cannot be chosen")
        return count

    @property
    def everything(self) -> bool:
        """Whether nothing is left out."""
        return self.density is None and self.top_k is None and self.threshold is None and self.rule is None

    def describe(self) -> str:
        """The words for the file's recipe."""
        if self.rule is not None and self.counts is not None:
            return f"{self.rule}, {sum(self.counts.values())} words"
        chosen = "" if self.rule is None else f"{self.rule}, "
        for name, value in (("density", self.density), ("top-k", self.top_k), ("threshold", self.threshold)):
            if value is not None:
                return f"{chosen}{name} {value}"
        return "all"


EVERYTHING = Selection()
"""The selection that leaves nothing out."""


EVERY_FILE = FileChoice()
"""The choice that leaves no side file out."""


@dataclass(frozen=True)
class Options:
    """How a diff is made."""

    selection: Selection = EVERYTHING
    value_choice: str = EXACT.id
    profile: str = "compact"
    position_choice: str = AUTO
    target: Target | None = None
    importance: Mapping[str, float] | None = None
    rename: Renaming | None = None
    allow_removed: bool = False
    keep_layout: bool = True
    keep_files: FileChoice = EVERY_FILE
    keep_code: bool = False
    sha256: bool = False
    base_name: str | None = None
    base_revision: str | None = None
    threads: int | None = None
    rank: int | None = None

    def __post_init__(self) -> None:
        if self.value_choice not in VALUE_CHOICES:
            raise UsageError(f"values are one of {', '.join(VALUE_CHOICES)}, not {self.value_choice!r}")
        if self.position_choice not in POSITION_CHOICES:
            raise UsageError(f"the positions are one of {', '.join(POSITION_CHOICES)}, not {self.position_choice!r}")
        if self.target is not None and (not self.value_coding.exact or not self.selection.everything):
            raise UsageError(
                "a budget or a target error finds entries and values by itself: give no other choice of them"
            )
        if self.importance is not None and self.target is None:
            raise UsageError("importance weighs the error of a budget or a target error: give one")
        self._check_rank()
        if self.profile not in PROFILES:
            raise UsageError(f"the profile is one of {', '.join(PROFILES)}, not {self.profile!r}")

    def _check_rank(self) -> None:
        lowrank = self.value_coding is SUMMED
        if lowrank and not self.selection.everything:
            raise UsageError("low rank is of a whole change: give no choice of entries with it")
        if self.rank is None:
            return
        predicted = self.exact and self.profile == "smallest"
        if not lowrank and self.target is None and not predicted:
            raise UsageError(
                "a rank goes with a budget, a target error, low-rank values, or exact ones in the profile smallest"
            )
        least = 1 if lowrank else 0
        if isinstance(self.rank, bool) or not isinstance(self.rank, int) or not least <= self.rank <= limits.RANK:
            raise UsageError(f"a rank is a whole number from {least} to {limits.RANK}, not {self.rank!r}")

    @property
    def value_coding(self) -> ValueCoding:
        """How values are stored where nothing asks for another way."""
        return VALUE_CHOICES[self.value_choice]

    @property
    def position_coding(self) -> PositionCoding | None:
        """How positions of exact changes are stored; None: the smallest way for each tensor."""
        return POSITION_CODINGS.get(self.position_choice)

    @property
    def exact(self) -> bool:
        """Whether the diff will give the tuned checkpoint back, bit for bit."""
        return self.value_coding.exact and self.selection.everything and self.target is None
