"""Which class of transformers a result's tensors belong in, and its configuration: from the diff's side files."""

from __future__ import annotations

import json
from typing import Any

from diffpack.checkpoints import Checkpoint
from diffpack.diff.diff import Diff
from diffpack.diff.sidefiles import side_contents
from diffpack.errors import CorruptFileError, MissingDependencyError, UsageError
from diffpack.support.names import printable

CONFIG = "config.json"
GENERATION = "generation_config.json"
_TAKE = "take the tensors from diffpack.load"
_UNUSABLE = (ValueError, KeyError, TypeError, AttributeError)
"""What transformers raises for members of a configuration that it can do nothing with."""


def import_transformers() -> Any:
    """Import transformers. Raises `MissingDependencyError`."""
    try:
        import transformers
    except ImportError:
        raise MissingDependencyError("transformers", "train", "live.from_pretrained") from None
    return transformers


def read_configs(diff: Diff, base: Checkpoint) -> dict[str, dict[str, Any]]:
    """The result's config.json and, if there is one, its generation_config.json, parsed.

    They are the diff's, or the base's where the diff says that they are, or keeps no side files at all. Code that
    stands beside them is not looked at. Raises `UsageError` without a config.json, `CorruptFileError`,
    `WrongBaseError`.
    """
    contents = side_contents(diff, base, only=(CONFIG, GENERATION))
    if CONFIG not in contents:
        raise UsageError(
            f"{diff.name}: neither it nor {base.source} has a {CONFIG}, which says how the model is built: give the "
            f"base's model folder, or build the model yourself and {_TAKE}"
        )
    found = {}
    for name, content in contents.items():
        try:
            found[name] = json.loads(content)
        except ValueError as error:
            raise CorruptFileError(f"{diff.name}: its {name} is no JSON ({error})") from None
        if not isinstance(found[name], dict):
            raise CorruptFileError(f"{diff.name}: its {name} is no JSON object")
    return found


def build_config(members: dict[str, Any], where: str) -> Any:
    """The configuration as transformers' own class for its `model_type`; no code but that of transformers is run.

    Raises `UsageError` for a kind of model that transformers does not have, and for quantised weights.
    """
    transformers = import_transformers()
    kind = members.get("model_type")
    if not isinstance(kind, str) or kind not in transformers.CONFIG_MAPPING:
        own_code = " (it names code of its own in auto_map, which is never run)" if "auto_map" in members else ""
        raise UsageError(
            f"{where}: transformers {transformers.__version__} has no model of the type {kind!r}{own_code}: build the "
            f"model yourself and {_TAKE}"
        )
    if members.get("quantization_config"):
        raise UsageError(
            f"{where}: a quantised model ({CONFIG} has a quantization_config): write it with diffpack.apply, and load "
            "that folder with transformers"
        )
    try:
        return transformers.CONFIG_MAPPING[kind].from_dict(members)
    except _UNUSABLE as error:
        raise CorruptFileError(f"{where}: its {CONFIG} cannot be used: {error}") from None


def find_class(config: Any, asked: type | str | None, where: str) -> Any:
    """The class of transformers to build: the one asked for, or the first of the configuration's `architectures`.

    One of transformers' Auto classes stands for the class it has for the configuration. Raises `UsageError`.
    """
    transformers = import_transformers()
    named = asked
    if named is None:
        architectures = getattr(config, "architectures", None) or []
        if not architectures:
            raise UsageError(f"{where}: its {CONFIG} names no architecture: name the class to build (model_class=)")
        named = architectures[0]
    found = getattr(transformers, named, None) if isinstance(named, str) else named
    if found is None:
        raise UsageError(
            f"{where}: transformers {transformers.__version__} has no class {printable(str(named))}, and code of other "
            f"origin is not run: name a class (model_class=), or build the model yourself and {_TAKE}"
        )
    mapping = getattr(found, "_model_mapping", None)
    if mapping is not None:
        if type(config) not in mapping:
            raise UsageError(f"{where}: {found.__name__} has no class for {type(config).__name__}: name another one")
        found = mapping[type(config)]
        found = found[0] if isinstance(found, list | tuple) else found
    if not (isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)):
        raise UsageError(f"{where}: {printable(str(named))} is no class of models of transformers")
    return found
