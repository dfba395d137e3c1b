"""mergekit's configuration files, as far as they merge changes of one base: its words, with its meanings.

Read as mergekit 0.1.5 does (config.py, parameter_resolver.py, plan.py there). What changes the number of layers, the
tokenizer or the dtype is no merge of diffs and is refused by name.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from pathlib import Path
from typing import Any

from diffpack.algebra.merge.config_parameters import Scopes
from diffpack.algebra.merge.method import Method
from diffpack.algebra.merge.methods import METHODS
from diffpack.algebra.merge.per_tensor import EVERY, Layers, Setting
from diffpack.checkpoints import Checkpoint
from diffpack.diff.diff import Diff
from diffpack.errors import MissingDependencyError, UsageError
from diffpack.support.names import listed, printable

_TOP = ("merge_method", "models", "slices", "base_model", "parameters", "dtype", "out_dtype", "tokenizer_source",
        "tokenizer")  # fmt: skip
_DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_PRUNING = ("int8_mask", "normalize", "rescale", "lambda", "weight", "density")
_PARAMETERS = {
    "task_arithmetic": _PRUNING,
    "linear": ("weight", "normalize"),
    "ties": _PRUNING,
    "dare_linear": _PRUNING,
    "dare_ties": _PRUNING,
    "della": (*_PRUNING, "epsilon"),
    "della_linear": (*_PRUNING, "epsilon"),
    "breadcrumbs": (*_PRUNING, "gamma"),
    "breadcrumbs_ties": (*_PRUNING, "gamma"),
    "sce": ("int8_mask", "select_topk"),
    "slerp": ("t",),
}
"""mergekit's methods that merge changes, with the parameters each has there."""
_EQUAL = 1e-6  # mean squares that add up to less do not weigh anything in mergekit's sce
_ONE = 1e-6  # how far weights that are not normalised may be from adding up to 1
DIFF_SUFFIX = ".dpk"


@dataclass(frozen=True)
class MergeConfig:
    """What a configuration file asks for.

    `models` are paths of diffs (`.dpk`) or of checkpoints that diffs are to be made of, in their order, `base` is the
    path or name of their base (None: the file does not tell), `options` are those of `merge`, `dtype` the one that the
    result is to have, `layers` the number of layers that slices name, `notes` remarks for people.
    """

    models: tuple[str, ...]
    base: str | None
    options: Mapping[str, Any]
    dtype: str | None
    layers: int | None
    notes: tuple[str, ...]

    def check(self, diffs: Sequence[Diff], base: Checkpoint | None) -> None:
        """Raise `UsageError` if diffs or base have another dtype, or another number of layers, than the file says."""
        if self.layers is not None and base is not None and self.layers not in Layers(base.tensors).counts:
            raise UsageError(f"slices: {base.source} has not {self.layers} layers: name all, from 0 to the last")
        for diff in diffs:
            for name, record in diff.items():
                if self.dtype is not None and record.info.dtype.arithmetic and record.dtype != self.dtype:
                    raise UsageError(
                        f"dtype: {diff.name} has {printable(name)} as {record.dtype}, not {self.dtype}: a merge of "
                        "diffs keeps their dtypes and adds in float64; leave dtype and out_dtype out"
                    )


def read_config(path: str | os.PathLike[str]) -> MergeConfig:
    """Read a configuration file of mergekit.

    Paths in it are relative to the current folder, as for mergekit, or else to the file's. Raises `UsageError` for
    what is not understood or supported, by name, `MissingDependencyError` without PyYAML.
    """
    file = Path(path)
    try:
        return _Reader(file, _loaded(file)).config()
    except UsageError as error:
        raise UsageError(f"{file}: {error}") from None


def _loaded(file: Path) -> Mapping[str, Any]:
    try:
        import yaml
    except ImportError:
        raise MissingDependencyError("PyYAML", "yaml", "a merge by a configuration file") from None
    try:
        found = yaml.safe_load(file.read_bytes())
    except OSError as error:
        raise UsageError(error.strerror or str(error)) from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UsageError(f"no YAML, or several documents: {' '.join(str(error).split())}") from None
    if not isinstance(found, Mapping):
        raise UsageError("no configuration of a merge: it has merge_method, models, parameters")
    return found


class _Reader:
    """Reads one file."""

    def __init__(self, file: Path, found: Mapping[str, Any]) -> None:
        self._file = file
        self._found = found
        self._notes: list[str] = []
        self._layers: int | None = None

    def config(self) -> MergeConfig:
        """Give what it asks for."""
        self._check_members()
        method = self._method()
        items, shared = self._inputs()
        named = [_model(item.get("model")) for item in items]
        if len(set(named)) != len(named):
            raise UsageError("models: one of them stands there twice")
        base = None if self._found.get("base_model") is None else _model(self._found["base_model"])
        scopes = Scopes(method.name, _PARAMETERS[method.name], [item.get("parameters") for item in items], shared)
        self._notes += scopes.notes
        models, kept = self._chosen(method, named, base, scopes)
        options = self._options(method, scopes, kept)
        paths = tuple(self._path(model) for model in models)
        if base is not None and base.endswith(DIFF_SUFFIX):
            if method.between is None:
                raise UsageError(f"base_model: {base} is a diff: name the checkpoint it is a diff of")
            base = None
        return MergeConfig(
            paths, None if base is None else self._path(base), options, self._dtype(), self._layers, tuple(self._notes)
        )

    def _check_members(self) -> None:
        for name in self._found:
            if name not in _TOP:
                raise UsageError(f"{printable(str(name))}: not supported in a merge of diffs, as {', '.join(_TOP)} are")
        source = self._found.get("tokenizer_source")
        if isinstance(tokenizer := self._found.get("tokenizer"), Mapping):
            source = tokenizer.get("source") if set(tokenizer) == {"source"} else tokenizer
        if source not in (None, "base", self._found.get("base_model")):
            raise UsageError(
                "tokenizer: a merge of diffs keeps tokens where they are, the base's (tokenizer_source: base), or "
                "those of the diff whose rows or head it takes"
            )

    def _method(self) -> Method:
        name = self._found.get("merge_method")
        if name not in _PARAMETERS:
            raise UsageError(f"merge_method: {name!r} does not merge changes of one base; {', '.join(_PARAMETERS)} do")
        return METHODS[name]

    def _inputs(self) -> tuple[list[Mapping[str, Any]], list[Any]]:
        """The models with their own parameters, and the scopes of parameters for all of them, the nearest first."""
        shared = [self._found.get("parameters")]
        items = self._found.get("models")
        if slices := self._found.get("slices"):
            if items or not isinstance(slices, Sequence) or len(slices) != 1 or not isinstance(slices[0], Mapping):
                raise UsageError("slices: several of them put layers together anew, which is no merge of diffs")
            if unknown := slices[0].keys() - {"sources", "parameters"}:
                raise UsageError(f"slices: {', '.join(sorted(map(str, unknown)))}: not supported in a merge of diffs")
            items, shared = slices[0].get("sources"), [slices[0].get("parameters"), *shared]
        if not isinstance(items, Sequence) or not items or not all(isinstance(item, Mapping) for item in items):
            raise UsageError("models: a list of models is missing, each as `- model: PATH`")
        known = {"model", "parameters", "layer_range"} if slices else {"model", "parameters"}
        for item in items:
            if unknown := item.keys() - known:
                raise UsageError(f"models: {', '.join(sorted(map(str, unknown)))}: not supported in a merge of diffs")
        if slices:
            self._check_ranges(items)
        return list(items), shared

    def _check_ranges(self, items: Sequence[Mapping[str, Any]]) -> None:
        ranges = [item.get("layer_range") for item in items]
        if any(found != ranges[0] for found in ranges) or not isinstance(ranges[0], list) or ranges[0][:1] != [0]:
            raise UsageError("slices: layers left out or moved are no merge of diffs: name all, from 0 to the last")
        self._layers = ranges[0][-1]

    def _chosen(
        self, method: Method, named: Sequence[str], base: str | None, scopes: Scopes
    ) -> tuple[list[str], list[int | None]]:
        """The models whose diffs are merged, and the place of each one's own parameters (None: it has none)."""
        listed_models: list[tuple[str, int | None]] = [(model, at) for at, model in enumerate(named)]
        if method.between is not None:
            if base is None:
                raise UsageError(f"base_model: {method.name} needs it: the one of the two that t starts from")
            others = [item for item in listed_models if item[0] != base]
            if len(others) != 1:
                raise UsageError(f"models: {method.name} takes the base_model and one other, not {listed(list(named))}")
            return [base, others[0][0]], [None, None]
        if method.name == "linear":
            if base is not None and base not in named and scopes.of("weight", None) is not None:
                self._notes.append(f"the base_model {base} is averaged with the models, as mergekit does")
                listed_models.append((base, None))
        else:
            listed_models = [item for item in listed_models if item[0] != base]
        if not listed_models:
            raise UsageError("models: there is none but the base")
        return [model for model, _ in listed_models], [at for _, at in listed_models]

    def _options(self, method: Method, scopes: Scopes, kept: Sequence[int | None]) -> dict[str, Any]:
        options: dict[str, Any] = {"method": method.name}
        if method.between is not None:
            return options | {"t": scopes.needed("t")}
        weights: list[Setting] = [_weight(scopes.of("weight", at)) for at in kept]
        normalize = scopes.flag("normalize")
        if method.select is None:
            options["weights"] = weights
        if method.name == "linear" and normalize is False:
            plain = [weight for weight in weights if isinstance(weight, float)]
            if len(plain) < len(weights) or abs(fsum(plain) - 1) > _ONE:
                raise UsageError(
                    "normalize: false with weights that do not add up to 1 makes the base larger or smaller, too, "
                    "which no diff of it does; merge_method: task_arithmetic adds up changes"
                )
            normalize = None
        if normalize is not None:
            options["normalize"] = normalize
        for ours, theirs in (("density", "density"), ("gamma", "gamma"), ("epsilon", "epsilon")):
            each = [scopes.of(theirs, at) for at in kept]
            if (method.prune is not None or ours != "density") and any(item is not None for item in each):
                options[ours] = each[0] if all(item == each[0] for item in each) else each
        if method.select is not None:
            options["epsilon"] = _EQUAL
            if (topk := scopes.of("select_topk", None)) is not None:
                options["density"] = topk
        if (scale := scopes.of("lambda", None)) is not None:
            options["scale"] = scale
        return options | self._rescale(method, scopes, "density" in options)

    def _rescale(self, method: Method, scopes: Scopes, pruned: bool) -> dict[str, str]:
        """Mergekit's rescale restores the norm of what random methods keep, which is its default."""
        asked = scopes.flag("rescale")
        if not method.random:
            if asked and method.prune is not None:
                raise UsageError(
                    f"rescale: {method.name} is not rescaled in a merge of diffs; lambda is a factor for all"
                )
            return {}
        return {"rescale": "none" if asked is False else "norm"} if pruned else {}

    def _dtype(self) -> str | None:
        for member in ("dtype", "out_dtype"):
            if self._found.get(member) is not None and self._found[member] not in _DTYPES:
                raise UsageError(f"{member}: {self._found[member]!r} is none of {', '.join(_DTYPES)}")
        # where both stand, dtype is what mergekit computes in; ours are sums in float64
        asked = self._found.get("out_dtype") or self._found.get("dtype")
        return None if asked is None else _DTYPES[asked]

    def _path(self, model: str) -> str:
        if Path(model).exists() or Path(model).is_absolute():
            return model
        beside = self._file.parent / model
        return str(beside) if beside.exists() else model


def _weight(setting: Setting | None) -> Setting:
    """A model's weight; 1 if nothing is said of it. Raises `UsageError` if it is said of some tensors only."""
    if setting is None:
        return 1.0
    if isinstance(setting, Mapping) and EVERY not in setting:
        raise UsageError("weight: filters need a value for the rest: add `- value: 1`, which is no filter's")
    return setting


def _model(said: Any) -> str:
    """A model's path, from any of the forms mergekit takes."""
    if isinstance(said, Mapping) and set(said) <= {"model", "path"} and len(said) == 1:
        return _model(next(iter(said.values())))
    if not isinstance(said, str) or not said:
        raise UsageError(f"model: {said!r} is not the path of a diff or a checkpoint")
    if "+" in said and not Path(said).exists():
        raise UsageError(f"model: {said}: an adapter: `diffpack convert` makes a diff of it, which can be named here")
    return said
