"""The base as a diff sees it: its tensors under the names of the diff, checked, and as references of the records."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from diffpack.checkpoints import Checkpoint
from diffpack.checkpoints.fingerprint import fingerprint
from diffpack.diff.naming import find_naming
from diffpack.diff.record import TensorDiff
from diffpack.errors import UsageError, WrongBaseError
from diffpack.format.manifest import Manifest
from diffpack.support.names import listed, printable
from diffpack.tensors.dtypes import Words
from diffpack.tensors.info import TensorInfo
from diffpack.tensors.reference import Reference
from diffpack.tensors.undo_rename import base_names
from diffpack.tensors.word_source import WordSource

_NAMED = 3  # names of the base that an error shows beside those it looked for


class BaseView:
    """A base under the names a diff has for it; `own` maps those to the names in the base's files.

    Several names may lead to one tensor of the base: the diff's copies. `naming` says by which rules the names were
    found: the diff's own, others, or none where the base has the result's names already.

    `records` are the diff's, `digest` gives what is recorded of a record's base tensor, `where` is what errors call the
    diff. Names, dtypes and shapes are checked, bits are not. Raises `WrongBaseError` if a tensor the diff needs is
    missing or has another dtype or shape. A live model need not have what is only removed; and with `partial` some of
    what changes: `lacking` names the tensors that cannot be made then.
    """

    def __init__(
        self,
        base: Checkpoint,
        manifest: Manifest,
        records: Mapping[str, TensorDiff],
        digest: Callable[[str], bytes | None],
        where: str,
        *,
        partial: bool = False,
    ) -> None:
        self.base = base
        self.lacking: frozenset[str] = frozenset()
        self._partial = partial and base.live
        self._records = records
        self._manifest = manifest
        self._where = where
        self._references: dict[str, Reference] = {}
        copies = manifest.copies or {}
        needs = {copies.get(record.name, record.name): record.base for record in records.values() if record.base}
        recorded = {copies.get(name, name): digest(name) for name in records}
        try:
            self.naming = find_naming(base, manifest.rename, needs, recorded.get, live=base.live)
        except UsageError as error:
            raise WrongBaseError(f"{base.source}: not the base of {where}: {error} [A2]") from None
        self.own: dict[str, str] = dict(self.naming.view)
        missing = [source for source in copies.values() if source not in self.own]
        if missing and not self._partial:
            copy = next(name for name, source in copies.items() if source == missing[0])
            raise WrongBaseError(
                f"{base.source}: not the base of {where}: {copy!r} is a copy of {missing[0]!r}, which is missing [A2]",
                tuple(missing),
            )
        for name, source in copies.items():
            self.own.pop(name, None)
            if source in self.naming.view:
                self.own[name] = self.naming.view[source]
        self._check()

    def __contains__(self, name: str) -> bool:
        return name in self.own

    def info(self, name: str) -> TensorInfo:
        """Dtype and shape of the base tensor the diff calls `name`."""
        return self.base.info(self.own[name])

    def words(self, name: str) -> Words:
        """The words of the base tensor the diff calls `name`."""
        return self.base.words(self.own[name])

    def word_source(self, name: str) -> WordSource:
        """The same, to be read part by part."""
        return self.base.word_source(self.own[name])

    def reference(self, name: str) -> Reference:
        """The reference of a record; made once."""
        known = self._references.get(name)
        if known is None:
            if name in self.lacking:
                raise WrongBaseError(
                    f"{self.base.source}: not the base of {self._where}: {printable(name)} is missing, and others are "
                    "coded together with it, against the base",
                    (name,),
                )
            record = self._records[name]
            words = self.word_source(name) if record.base is not None else None
            known = self._references.setdefault(name, Reference(record.info, record.base, words))
        return known

    def _check(self) -> None:
        wrong: dict[str, str] = {}
        if not self.base.live:
            wrong = {name: "is missing" for name in self._manifest.removed if name not in self}
        rule = "A3" if wrong else "A4"
        for name, record in self._records.items():
            there = self.info(name) if name in self else None
            if record.base is not None and there != record.base:
                wrong[name] = f"is missing ({record.base})" if there is None else f"is {there}, not {record.base}"
        for name in self._manifest.aliases.values() if self.base.live else ():
            if name not in self and name not in self._records:
                wrong[name] = "is missing"
        absent = {name for name in wrong if name not in self}
        touched = sum(record.base is not None for record in self._records.values())
        if self._partial and len(absent) < touched:
            aliases, copies = self._manifest.aliases, self._manifest.copies or {}
            gone = absent | (copies.keys() - self.own.keys())
            self.lacking = frozenset(gone | {name for name, target in aliases.items() if target in gone})
            wrong = {name: what for name, what in wrong.items() if name in self}
        if not wrong:
            return
        details = listed([f"{printable(name)} {what}{self._looked_for(name)}" for name, what in wrong.items()])
        shown = self._shown() if absent else ""
        if absent and self.base.live and not self._partial and len(absent) < touched:
            shown += "; `load(..., partial=True)` leaves them out"
        expected, actual = self._manifest.base.fingerprint, fingerprint(self.base)
        raise WrongBaseError(
            f"{self.base.source}: not the base of {self._where}: {details}{shown}{self._advice(wrong)} "
            f"(fingerprint expected {expected}, found {actual}) [{rule}]",
            tuple(wrong),
        )

    def _looked_for(self, name: str) -> str:
        """Under which other name a needed tensor was found, or not found."""
        own = self.own.get(name)
        if own is not None:
            return "" if own == name else f" (there it is {printable(own)})"
        names = [found for found in base_names(name, self._manifest.rename) if found != name]
        return f", and so is {printable(names[0])}" if names else ""

    def _shown(self) -> str:
        """A few names of the base, for people who look for another."""
        names = [printable(name) for name in self.base.tensors]
        return f"; there is {', '.join(names[:_NAMED])}{', ...' if len(names) > _NAMED else ''}"

    def _advice(self, wrong: Mapping[str, str]) -> str:
        """What to do where tensors differ in nothing but their precision."""
        kinds = set()
        for name in wrong:
            record, there = self._records.get(name), self.info(name) if name in self else None
            before = None if record is None else record.base
            same = before is not None and there is not None and before.shape == there.shape
            if not same or before is None or not before.dtype.arithmetic:
                return ""
            kinds.add(before.dtype.name)
        if not self.base.live or len(kinds) != 1:
            return ""
        torch_name = _TORCH_FLOATS[kinds.pop()]
        return f"; the model is in another precision than its base: load it with dtype=torch.{torch_name}"


_TORCH_FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
