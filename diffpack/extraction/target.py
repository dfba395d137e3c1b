"""What a diff is to arrive at: a size of its file, or an error of its result."""

from __future__ import annotations

from dataclasses import dataclass, replace

from diffpack.errors import UsageError
from diffpack.support.sizes import held, parse_size


@dataclass(frozen=True)
class Target:
    """What a diff is to arrive at: bytes of the whole file, or the relative L2 error of the result.

    A `share` is a budget as a part of the base's bytes, before these are known.
    """

    budget: int | None = None
    error: float | None = None
    share: float | None = None

    @classmethod
    def of(cls, budget: int | float | str | None, error: float | None) -> Target | None:
        """Read what the user asked for. Raises `UsageError`."""
        if budget is None and error is None:
            return None
        if budget is not None and error is not None:
            raise UsageError("choose one of budget and target error")
        if error is not None and not 0 < error < 1:
            raise UsageError(f"a target error is between 0 and 1, not {error}")
        if budget is None:
            return cls(error=error)
        size = parse_size(budget)
        return cls(share=size) if isinstance(size, float) else cls(size)

    def of_base(self, nbytes: int) -> Target:
        """The same for a base of so many bytes: a share becomes a budget. Raises `UsageError`."""
        if self.share is None:
            return self
        return replace(self, budget=held(int(self.share * nbytes), f"{100 * self.share:g}%"), share=None)

    def kept(self, nbytes: int, error: float) -> bool:
        """Tell whether a file of so many bytes and such an error keeps to it."""
        return nbytes <= self.budget if self.budget is not None else error <= (self.error or 0.0)

    def describe(self) -> str:
        """The words for the file's recipe."""
        return f"budget {self.budget} bytes" if self.error is None else f"target error {self.error}"
