"""How the factors of an adapter's layers are stored: as they are, as whole numbers, or not at all but merged.

Plain LoRA, scale x B A, is a product a diff can hold. DoRA is none; factors of float64, and sums that might be beyond
the base's dtype, are merged, too.
"""

from __future__ import annotations

import math
import threading
from functools import partial

import numpy as np
import numpy.typing as npt

from diffpack.algebra.sums import Sums
from diffpack.bridges.bridge import Import
from diffpack.bridges.formats.peft_adapter import Adapter
from diffpack.bridges.formats.peft_changes import AsFactors
from diffpack.bridges.formats.peft_factors import Layer, Matrix
from diffpack.bridges.formats.peft_merge import merged, sides
from diffpack.bridges.formats.whole_factors import whole_factors
from diffpack.bridges.importing import BaseTensor, Factored
from diffpack.errors import UsageError
from diffpack.format.factors.product import Factors, MatrixFactors
from diffpack.format.values.floats import FLOATS
from diffpack.result.overflow import largest_finite
from diffpack.support.names import listed, printable
from diffpack.tensors.dtypes import to_float

_AS_THEY_ARE, _WHOLE, _MERGED = "factors", "lowrank", "merged"
_ERROR = 2e-4
STORED = {
    "values": f"how layers are stored: {_AS_THEY_ARE}, those of the adapter bit for bit (default); {_WHOLE}, factors "
    f"of whole numbers, smaller and lossy; {_MERGED}, the merged weights in steps",
    "error": f"with values={_WHOLE}: the largest part of a layer's change that is lost (default {_ERROR})",
}
"""Options of LoRA adapters that are read."""
_NARROW = {"F16": "f16", "BF16": "bf16"}
"""Dtypes that both factors of a layer may have so that they are stored in them; others are widened to float32."""
_ROOM = 2  # sums that stay below a half of the largest number are not near it, however they are rounded


class StoredLayers:
    """Makes factors of an adapter's layers, and remembers which it could not, and which are nothing. Thread-safe.

    Raises `UsageError` for options that are none.
    """

    def __init__(self, adapter: Adapter, job: Import) -> None:
        self._adapter = adapter
        self._job = job
        self._choice = job.options.get("values", _AS_THEY_ARE)
        if self._choice not in (_AS_THEY_ARE, _WHOLE, _MERGED):
            raise UsageError(f"values is {_AS_THEY_ARE}, {_WHOLE} or {_MERGED}, not {self._choice!r}")
        self._error = _error(job, self._choice == _WHOLE)
        self._lock = threading.Lock()
        self._nothing: set[str] = set()
        self._plain: set[str] = set()

    def of(self, layer: Layer, turned: bool) -> AsFactors | None:
        """What makes the factors of a layer, whose weight may be stored `turned`; None if it is merged."""
        if self._choice == _MERGED or layer.magnitude in self._adapter.keys:
            return None
        return partial(self._factored, layer, turned)

    def recipe(self) -> dict[str, str]:
        """What the diff's recipe says of it."""
        lost = f"whole numbers, a part of {self._error:g} lost at most"
        said = {_AS_THEY_ARE: "as they were", _WHOLE: lost}
        return {"factors": said[self._choice]} if self._choice in said else {}

    def note(self) -> None:
        """Tell of layers that are stored otherwise than asked for."""
        for modules, what in (
            (self._nothing, "factors whose product is 0 are left out"),
            (self._plain, "factors that fit no whole numbers of 16 bits are stored as they are"),
        ):
            if modules:
                self._job.notes.append(f"{what}: {listed([printable(module) for module in sorted(modules)])}")

    def _factored(self, layer: Layer, turned: bool, base: BaseTensor) -> Factored | None:
        left, right = sides(self._adapter, layer, turned, base[0])
        scale = np.float32(layer.scale)
        plain = self._floats(layer, left, right, scale)
        if plain is None:
            return None
        bound = plain.matrices[0].bound
        if not bound or not scale:
            self._remember(self._nothing, layer)
            return None
        if not self._stays_finite(bound * abs(float(scale)), base):
            trial = Sums(clip=False)
            merged(self._adapter, layer, turned, trial, base)
            if trial.found:
                return None  # merged again, where the job's own sums refuse or clip them
        if self._choice == _WHOLE:
            whole = whole_factors(left, right, layer.scale, self._error)
            if whole is not None:
                return Factored(whole)
            self._remember(self._plain, layer)
        return Factored(plain)

    def _remember(self, modules: set[str], layer: Layer) -> None:
        with self._lock:
            modules.add(layer.module)

    def _floats(self, layer: Layer, left: Matrix, right: Matrix, scale: np.float32) -> Factors | None:
        """The factors as the adapter has them; None if no diff can hold them."""
        names = {
            self._adapter.weights.info(self._adapter.keys[layer.module + end]).dtype.name
            for end in (layer.first, layer.second)
        }
        finite = np.isfinite(left).all() and np.isfinite(right).all() and np.isfinite(scale)
        if "F64" in names or not finite:
            return None
        values = _NARROW.get(names.pop(), "f32") if len(names) == 1 else "f32"
        numbers = [FLOATS[values].numbers(side.reshape(-1)).reshape(side.shape) for side in (left.T, right)]
        matrix = MatrixFactors(values, numbers[0], numbers[1], np.ones(len(right), np.uint16))
        made = Factors(left.shape[0], right.shape[1], scale, (matrix,))
        return made if made.fits else None

    def _stays_finite(self, change: float, base: BaseTensor) -> bool:
        """Whether a change of no more than this in any entry cannot lead out of the base's dtype."""
        info, words = base
        values: npt.NDArray[np.floating] = to_float(words, info.dtype)
        largest = float(np.abs(values).max(initial=0))  # not a number if one of them is none
        return largest + change < largest_finite(info.dtype) / _ROOM


def _error(job: Import, used: bool) -> float:
    """The option `error`. Raises `UsageError` if it is no number above 0, or of no use."""
    text = job.options.get("error")
    if text is None:
        return _ERROR
    if not used:
        raise UsageError(f"error is for values={_WHOLE}; other values lose nothing")
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < 1:
        raise UsageError(f"error is a number between 0 and 1, not {text!r}")
    return number
