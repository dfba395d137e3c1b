"""How a diff is made: what the user of extract may choose, checked."""

from __future__ import annotations

from dataclasses import dataclass

from diffpack.codecs.streams import PROFILES
from diffpack.codecs.values import CODINGS as VALUES
from diffpack.errors import UsageError
from diffpack.select import EVERYTHING, Selection


@dataclass(frozen=True)
class Options:
    """How a diff is made."""

    selection: Selection = EVERYTHING
    values: str = "exact"
    profile: str = "compact"
    rename: tuple[tuple[str, str], ...] | None = None
    keep_layout: bool = True
    keep_files: bool = True
    sha256: bool = False
    base_name: str | None = None
    base_revision: str | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.values not in VALUES:
            raise UsageError(f"values are one of {', '.join(VALUES)}, not {self.values!r}")
        if self.profile not in PROFILES:
            raise UsageError(f"the profile is one of {', '.join(PROFILES)}, not {self.profile!r}")

    @property
    def exact(self) -> bool:
        """Whether the diff will give the tuned checkpoint back, bit for bit."""
        return self.values == "exact" and self.selection.everything
