"""What an adapter says of each tensor of the base: what replaces it, and what is added to that.

PEFT keeps a wrapped module's own parameters as `<module>.base_layer.<what>`, and saves those of embeddings beside the
factors; embeddings that were resized come as `original_module` and `modules_to_save`, too. So several tensors of an
adapter may lead to one of the base. As PEFT loads and merges them: the replacement first, then the sum.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from diffpack.algebra.sums import Sums
from diffpack.bridges.bridge import Import
from diffpack.bridges.formats.peft_adapter import Adapter
from diffpack.bridges.formats.peft_base import EMBEDDINGS, is_head, tied_heads
from diffpack.bridges.formats.peft_keys import UNTOUCHED, unwrapped
from diffpack.bridges.importing import Added, BaseTensor, Change, Factored, Make, Whole, checked, needed
from diffpack.errors import UsageError, WrongBaseError
from diffpack.support.names import listed, printable
from diffpack.tensors.info import TensorInfo
from diffpack.tensors.reference import convert

Addition = Callable[[BaseTensor], Whole | Added]
"""What is added to a tensor, made from that tensor."""
AsFactors = Callable[[BaseTensor], Factored | None]
"""The same as factors, where it can be stored as them."""
TIED = {
    "tied": "what factors of a head that is tied to the embedding change: together (default), both, as PEFT's merge "
    "does; apart, the head alone, as the adapter does while it is not merged"
}
"""The option of adapters on tied heads."""


class AdapterChanges:
    """The changes an adapter makes, collected by the tensors they lead to, under the names PEFT uses.

    `sums` watches what is added and rounded.
    """

    def __init__(self, adapter: Adapter, job: Import, sums: Sums) -> None:
        self._adapter = adapter
        self._job = job
        self._sums = sums
        self._view = job.view()
        self._replacing: dict[str, list[str]] = {}
        self._adding: dict[str, dict[str, tuple[str, Addition]]] = {}
        self._factored: dict[str, AsFactors] = {}
        self._heads = self._tied_heads(tied_heads(job, adapter))

    def _tied_heads(self, heads: Mapping[str, str]) -> Mapping[str, str]:
        """Tell of tied heads; give those that change apart from their embedding (name -> the embedding's)."""
        answer = self._job.options.get("tied", "together")
        if answer not in ("together", "apart"):
            raise UsageError(f"tied is together or apart, not {answer!r}")
        saved = self._adapter.config.get("modules_to_save") or ()
        self._together: dict[str, str] = {}
        apart = {}
        for head, embedding in heads.items():
            what = f"{printable(head)} is tied to {printable(embedding)} in the base"
            replaced = any(f".{module}." in f".{embedding}" for module in saved)
            if answer == "apart" or replaced:
                apart[head] = embedding
                why = "which the adapter replaces" if replaced else "as while PEFT has not merged it"
                self._job.notes.append(f"{what}, and changes apart from it ({why}): set tie_word_embeddings to false")
            else:
                self._together[head] = embedding
                self._job.notes.append(
                    f"{what}: both change, as in PEFT's merge_and_unload; while the adapter is not merged the head "
                    "alone does, which the option tied=apart gives"
                )
        return apart

    def target(self, name: str) -> str:
        """The tensor a name leads to: without the names of PEFT's wrappers, unless the base has them."""
        plain = name if name in self._view else unwrapped(name)
        return self._together.get(plain, plain)

    def base_info(self, name: str) -> TensorInfo | None:
        """Dtype and shape of the tensor that the changes of `name` start from, as the base has it."""
        target = self.target(name)
        own = self._view.get(self._heads.get(target, target))
        return None if own is None else self._job.needed_base.info(own)

    def replace(self, name: str) -> None:
        """Let the adapter's tensor of a name replace what it leads to."""
        self._replacing.setdefault(self.target(name), []).append(name)

    def add(self, name: str, source: str, addition: Addition, factored: AsFactors | None = None) -> None:
        """Let something be added to the tensor that `name` leads to; `source` is the adapter's name for it.

        Where nothing else changes that tensor it may be `factored`.

        Raises `UsageError` if something is added under that name already (a tied head and its embedding have two).
        """
        target, plain = self.target(name), unwrapped(name)
        adding = self._adding.setdefault(target, {})
        if plain in adding:
            raise UsageError(
                f"{self._adapter.path}: both {printable(adding[plain][0])} and {printable(source)} are added to "
                f"{printable(target)}: only one of them can be meant"
            )
        adding[plain] = source, addition
        if factored is not None:
            self._factored[target] = factored

    def makes(self) -> dict[str, Make]:
        """The change of each tensor. Raises `WrongBaseError` if the base lacks tensors the adapter is for."""
        targets = sorted({*self._replacing, *self._adding})
        self._check_names(targets)
        self._note(targets)
        return {name: partial(self._make, name) for name in targets}

    def ties(self, makes: Mapping[str, Make]) -> dict[str, str]:
        """The tensors that are tied to a changed one: name -> the other name.

        A tied model's file has one name of its embedding, and PEFT saves both: they are tied again. Where a base's file
        holds one tensor under two names, what is added to one is added to the other, as in PEFT's merge.
        """
        ties = self._kept_ties(makes)
        whole = [name for name in makes if name not in self._adding]
        for name in (name for name in whole if name not in self._view):
            others = [other for other in whole if other in self._view or (other < name and other not in ties)]
            equal = next((other for other in others if self._equal(self._chosen(name), self._chosen(other))), None)
            if equal is not None:
                ties[name] = equal
        return ties

    def _kept_ties(self, makes: Mapping[str, Make]) -> dict[str, str]:
        """Names of the base that are tied to the one name of a tensor that is added to."""
        names = {own: name for name, own in self._view.items()}
        classes: dict[str, list[str]] = {}
        for own, first in self._job.needed_base.ties.items():
            classes.setdefault(first, [names[first]]).append(names[own])
        ties: dict[str, str] = {}
        for members in classes.values():
            changed = [name for name in members if name in makes]
            if len(changed) == 1 and changed[0] in self._adding:
                ties |= {name: changed[0] for name in members if name != changed[0]}
        if ties:
            said = [f"{printable(name)} with {printable(other)}" for name, other in sorted(ties.items())]
            self._job.notes.append(f"tied in the base, and changed with it: {listed(said)}")
        return ties

    def _check_names(self, targets: list[str]) -> None:
        missing = [name for name in targets if name not in self._view and name not in self._heads]
        lost = [name for name in missing if name in self._adding]
        lost = lost or (missing if len(missing) == len(targets) else [])
        if lost:
            raise WrongBaseError(
                f"{self._job.source}: the base has no tensors of these names: "
                f"{listed([printable(name) for name in lost])} (rename rules lead from its names to them)"
                f"{self._adapter.made_for}",
                tuple(lost),
            )

    def _note(self, targets: list[str]) -> None:
        """Say which tensors are new, and which have more rows than the base's."""
        base, view = self._job.needed_base, self._view
        whole = {name: self._adapter.weights.info(self._adapter.keys[self._chosen(name)]) for name in self._replacing}
        new = [printable(name) for name in targets if name not in view]
        grown = [
            f"{printable(name)} ({whole[name].shape[0]}, not {base.info(view[name]).shape[0]})"
            for name in targets
            if name in whole and name in view and _grown(base.info(view[name]), whole[name])
        ]
        alone = [
            printable(name)
            for name in sorted(self._replacing)
            if name in view
            and name not in self._adding
            and name.removesuffix(".weight").rpartition(".")[2] in EMBEDDINGS
            and not any(is_head(other) for names in (view, self._replacing) for other in names)
        ]
        if alone:
            what = "replaced whole; a head that the model ties to it changes here with it, in PEFT it keeps the old one"
            self._job.notes.append(f"{listed(alone)}: {what}")
        if new:
            self._job.notes.append(f"new, since the base has no tensors of these names: {listed(new)}")
        if grown:
            self._job.notes.append(f"more rows than in the base: {listed(grown)}")

    def _chosen(self, target: str) -> str:
        """The adapter's name of what replaces a tensor. Raises `UsageError` if two replacements differ."""
        names = self._replacing[target]
        used = [name for name in names if name in self._view or UNTOUCHED not in name.split(".")]
        if not used:
            raise UsageError(
                f"{self._adapter.path}: {printable(names[0])} is the base's own tensor; what was trained is missing"
            )
        for other in used[1:]:
            if not self._equal(used[0], other):
                raise UsageError(
                    f"{self._adapter.path}: both {printable(used[0])} and {printable(other)} replace "
                    f"{printable(target)}, and they differ: only one of them can be meant"
                )
        return used[0]

    def _equal(self, one: str, two: str) -> bool:
        weights, keys = self._adapter.weights, self._adapter.keys
        if weights.info(keys[one]) != weights.info(keys[two]):
            return False
        return np.array_equal(weights.words(keys[one]), weights.words(keys[two]))

    def _make(self, target: str, base: BaseTensor | None) -> Change:
        whole = self._replaced(target, base) if target in self._replacing else None
        if target not in self._adding:
            assert whole is not None
            return whole
        factored = self._alone(target, whole, base)
        if factored is not None:
            return factored
        base = self._head_base(target) if base is None else base
        start, lossy = (base, False) if whole is None else ((whole.info, whole.words), whole.lossy)
        adding = self._adding[target].values()
        for source, addition in adding:
            where = f"{self._adapter.path}: {printable(source)}"
            start = needed(start, where)
            change = addition(start)
            if isinstance(change, Added):
                if len(adding) == 1 and _same(start, base):
                    return change
                change = self._added_up(target, start, change, where)
            start, lossy = (change.info, change.words), lossy or change.lossy
        assert start is not None
        return Whole(*start, lossy=lossy)

    def _alone(self, target: str, whole: Whole | None, base: BaseTensor | None) -> Factored | None:
        """The factors of what is added, if nothing else changes the tensor and they can be stored."""
        unchanged = base is not None and (whole is None or _same((whole.info, whole.words), base))
        if base is None or not unchanged or len(self._adding[target]) > 1 or target not in self._factored:
            return None
        return self._factored[target](base)

    def _head_base(self, target: str) -> BaseTensor | None:
        """What a head that changes apart from its embedding starts from: that embedding."""
        if target not in self._heads:
            return None
        base, own = self._job.needed_base, self._view[self._heads[target]]
        return base.info(own), base.words(own)

    def _added_up(self, target: str, start: BaseTensor, change: Added, where: str) -> Whole:
        values = checked(change, start[0], where).astype(np.float64)
        after = np.array(start[1])
        places = slice(None) if change.positions is None else change.positions
        after[places] = self._sums.add(target, after[places], values, start[0])
        return Whole(start[0], after, lossy=True)

    def _replaced(self, target: str, base: BaseTensor | None) -> Whole:
        """What replaces a tensor, in the base's dtype; it may have more rows (a grown vocabulary)."""
        name = self._chosen(target)
        key = self._adapter.keys[name]
        stored, words = self._adapter.weights.info(key), self._adapter.weights.words(key)
        if base is None:
            return Whole(stored, words)
        info = base[0]
        fits = stored.dtype == info.dtype or (stored.dtype.arithmetic and info.dtype.arithmetic)
        if not fits or not (stored.shape == info.shape or _grown(info, stored)):
            where = f"{self._adapter.path}: {printable(key)}"
            raise WrongBaseError(f"{where}: is {stored}, the base's tensor {info}", (target,))
        if stored.dtype == info.dtype:
            return Whole(stored, words)
        rounded = self._sums.rounded(target, words, stored.dtype, info.dtype)
        back = convert(rounded, info.dtype, stored.dtype)
        return Whole(TensorInfo(info.dtype, stored.shape), rounded, lossy=not np.array_equal(back, words))


def _same(start: BaseTensor, base: BaseTensor | None) -> bool:
    return base is not None and start[0] == base[0] and np.array_equal(start[1], base[1])


def _grown(base: TensorInfo, stored: TensorInfo) -> bool:
    """Whether a tensor has more rows than the base's, and else its shape."""
    same = len(base.shape) == len(stored.shape) > 0 and base.shape[1:] == stored.shape[1:]
    return same and stored.shape[0] > base.shape[0]
