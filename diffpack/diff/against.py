"""The base as a diff sees it: its tensors under the names of the diff, checked, and as references of the records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

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
from diffpack.tensors.slices import AssembledWords, Assembly, Turned
from diffpack.tensors.undo_rename import base_names
from diffpack.tensors.word_source import WordSource

_NAMED = 3  # names of the base that an error shows beside those it looked for


class BaseView:
    """A base under the names a diff has for it.

    `own` maps those of tensors that the base has to its own names. Several may lead to one tensor of the base: the
    diff's copies. `assembled` are the tensors that are put together from slices of the base's. `naming` says by which
    rules the names were found: the diff's own, others, or none where the base has the result's names already.

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
        self._turned = Turned()
        self._put_together: dict[str, AssembledWords] = {}  # one each: what it has turned is kept by it
        self._slices = manifest.slices or {}
        copies = manifest.copies or {}
        needs: dict[str, TensorInfo | None] = dict.fromkeys(self._sources())
        needs |= {
            copies.get(record.name, record.name): record.base
            for record in records.values()
            if record.base and record.name not in self._slices
        }
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
        for name in self._slices:
            self.own.pop(name, None)
        infos = {name: self._assembled_info(name, assembly) for name, assembly in self._slices.items()}
        self.assembled = {name: info for name, info in infos.items() if info is not None}
        self._check()

    def __contains__(self, name: str) -> bool:
        return name in self.own or name in self.assembled

    def __iter__(self) -> Iterator[str]:
        """The names: those of the base in its order, then what is made of slices."""
        yield from self.own
        yield from self.assembled

    def info(self, name: str) -> TensorInfo:
        """Dtype and shape of the base tensor the diff calls `name`."""
        return self.assembled[name] if name in self.assembled else self.base.info(self.own[name])

    def words(self, name: str) -> Words:
        """The words of the base tensor the diff calls `name`."""
        if name in self.assembled:
            source = self.word_source(name)
            return source[0 : source.size]
        return self.base.words(self.own[name])

    def word_source(self, name: str) -> WordSource:
        """The same, to be read part by part."""
        if name in self.assembled:
            known = self._put_together.get(name)
            if known is None:
                made = assembled_words(self._slices[name], self.base, self.naming.view, self._turned)
                known = self._put_together.setdefault(name, made)
            return known
        return self.base.word_source(self.own[name])

    def sources(self) -> set[str]:
        """The base's own names of the tensors that slices are taken of, as far as it has them."""
        view = self.naming.view
        return {view[source] for source in self._sources() if source in view}

    def _sources(self) -> dict[str, None]:
        """The diff's names of the tensors that slices are taken of."""
        return {source: None for assembly in self._slices.values() for source in assembly.sources}

    def _assembled_info(self, name: str, assembly: Assembly) -> TensorInfo | None:
        """What slices come to; None if a part of a base lacks some. Raises `WrongBaseError` if it must not."""
        view = self.naming.view
        lacking = [source for source in assembly.sources if source not in view]
        infos = {source: self.base.info(view[source]) for source in assembly.sources if source in view}
        info = assembly.info(infos)
        if info is None and not (lacking and self._partial):
            slices = listed([printable(source) for source in lacking or assembly.sources])
            raise WrongBaseError(
                f"{self.base.source}: not the base of {self._where}: it lacks what {printable(name)} is made of, "
                f"slices of {slices} [A2]",
                tuple(lacking),
            )
        return info

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
            gone = absent | (copies.keys() - self.own.keys()) | (self._slices.keys() - self.assembled.keys())
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


def assembled_words(assembly: Assembly, base: Checkpoint, named: Mapping[str, str], turned: Turned) -> AssembledWords:
    """The words an assembly makes of a base, whose own names `named` leads to.

    The slices must be there (`Assembly.info`). Raises as `Checkpoint.word_source` does.
    """
    infos = {source: base.info(named[source]) for source in assembly.sources}
    info = assembly.info(infos)
    assert info is not None
    words = {source: base.word_source(named[source]) for source in assembly.sources}
    return AssembledWords(assembly, info, infos, words, turned)
