"""The base as a diff sees it: its tensors under the names of the diff, checked, and as references of the records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from diffpack.checkpoints import Checkpoint
from diffpack.checkpoints.fingerprint import fingerprint
from diffpack.diff.record import TensorDiff
from diffpack.errors import UsageError, WrongBaseError
from diffpack.format.manifest import Manifest
from diffpack.support.names import listed, printable
from diffpack.tensors.dtypes import Words
from diffpack.tensors.info import TensorInfo
from diffpack.tensors.reference import Reference
from diffpack.tensors.rename import own_names
from diffpack.tensors.slices import AssembledWords, Assembly, Turned
from diffpack.tensors.word_source import WordSource


class BaseView:
    """A base under the names a diff has for it.

    `own` maps those of tensors that the base has to the names in the base's files. Several may lead to one tensor of
    the base: the diff's copies. `assembled` are the tensors that are put together from slices of those.

    `records` are the diff's, `where` is what errors call it. Names, dtypes and shapes are checked, bits are not. Raises
    `WrongBaseError` if a tensor the diff needs is missing or has another dtype or shape.
    """

    def __init__(self, base: Checkpoint, manifest: Manifest, records: Mapping[str, TensorDiff], where: str) -> None:
        self.base = base
        self._records = records
        self._references: dict[str, Reference] = {}
        self._turned = Turned()
        try:
            named = own_names(base.tensors, manifest.rename)
            self.own = own_names(base.tensors, manifest.rename, manifest.copies)
        except UsageError as error:
            raise WrongBaseError(f"{base.source}: not the base of {where}: {error} [A2]") from None
        self._named = named
        self._slices = manifest.slices or {}
        self.assembled: dict[str, TensorInfo] = {}
        for name, assembly in self._slices.items():
            info = assembly.info({source: base.info(named[source]) for source in assembly.sources if source in named})
            if info is None:
                slices = listed([printable(source) for source in assembly.sources])
                raise WrongBaseError(
                    f"{base.source}: not the base of {where}: it lacks what {printable(name)} is made of, slices of "
                    f"{slices} [A2]"
                )
            self.assembled[name] = info
            self.own.pop(name, None)
        self._check(manifest, where)

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
            return assembled_words(self._slices[name], self.base, self._named, self._turned)
        return self.base.word_source(self.own[name])

    def reference(self, name: str) -> Reference:
        """The reference of a record; made once."""
        known = self._references.get(name)
        if known is None:
            record = self._records[name]
            words = self.word_source(name) if record.base is not None else None
            known = self._references.setdefault(name, Reference(record.info, record.base, words))
        return known

    def _check(self, manifest: Manifest, where: str) -> None:
        wrong = [name for name in manifest.removed if name not in self]
        details = [f"{printable(name)} is missing" for name in wrong]
        for name, record in self._records.items():
            if record.base is None:
                continue
            there = self.info(name) if name in self else None
            if there != record.base:
                wrong.append(name)
                what = "is missing" if there is None else f"is {there}"
                details.append(f"{printable(name)} {what}, not {record.base}")
        if wrong:
            rule = "A3" if wrong[0] in manifest.removed else "A4"
            expected, actual = manifest.base.fingerprint, fingerprint(self.base)
            message = (
                f"{self.base.source}: not the base of {where}: {listed(details)} "
                f"(fingerprint expected {expected}, found {actual}) [{rule}]"
            )
            raise WrongBaseError(message, tuple(wrong))


def assembled_words(assembly: Assembly, base: Checkpoint, named: Mapping[str, str], turned: Turned) -> AssembledWords:
    """The words an assembly makes of a base, whose own names `named` leads to.

    The slices must be there (`Assembly.info`). Raises as `Checkpoint.word_source` does.
    """
    infos = {source: base.info(named[source]) for source in assembly.sources}
    info = assembly.info(infos)
    assert info is not None
    words = {source: base.word_source(named[source]) for source in assembly.sources}
    return AssembledWords(assembly, info, infos, words, turned)
