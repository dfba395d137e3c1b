"""The model that is tuned: loaded from a folder without any network, its head told from its body."""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from diffpack.checkpoints import open_checkpoint
from diffpack.errors import CheckpointError, MissingDependencyError, UsageError
from diffpack.support.quietly import quiet_transformers
from diffpack.train.preparation import require_folder

with contextlib.suppress(ImportError):
    import transformers


ATTENTION = "eager"
"""How attention is computed while training: with dropout, torch's own kernel is a fifth slower on a processor."""
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model", "*.tiktoken")
"""One of them holds the vocabulary; without any transformers makes up a tokenizer that knows no word."""
_FLOATS = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
"""What a base's tensors may be. Half precision is trained in float32: its range lets small steps and second moments
vanish and sums overflow."""
_POSITIONS = ("position_embeddings", ".wpe")
"""How the embeddings of positions are called; models without any take texts of any length."""
_UNREADABLE = (OSError, ValueError, KeyError, RuntimeError, SafetensorError)
"""What transformers raises for files it cannot make a model or tokenizer of."""


@dataclass(frozen=True)
class Classifier:
    """A model that tells texts' labels, ready to be trained.

    `head` names the parameters of its head; `labels` stand in the order of its outputs; `dtypes` says by a tensor's
    name what it is stored as, and under "" what new ones are: in `model` half precision is float32.
    """

    model: nn.Module
    head: list[str]
    labels: tuple[str, ...]
    dtypes: dict[str, torch.dtype]


def require_transformers() -> None:
    """Raise `MissingDependencyError` if transformers is not installed."""
    if "transformers" not in globals():
        raise MissingDependencyError("transformers", "train", "the trainer")


def load_tokenizer(folder: str | os.PathLike[str]) -> Any:
    """Load the tokenizer of a model folder. Raises `CheckpointError`."""
    require_transformers()
    require_folder(folder)
    if not any(path for pattern in TOKENIZER_FILES for path in Path(folder).glob(pattern)):
        raise CheckpointError(f"{folder}: no tokenizer: none of {', '.join(TOKENIZER_FILES)} is there")
    try:
        with quiet_transformers():
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except _UNREADABLE as error:
        raise CheckpointError(f"{folder}: its tokenizer cannot be loaded: {_first_line(error)}") from None
    if tokenizer.pad_token is None:
        raise CheckpointError(f"{folder}: its tokenizer has no padding token, so texts cannot share a batch; name one")
    return tokenizer


def load_classifier(folder: str | os.PathLike[str], labels: Sequence[str], seed: int) -> Classifier:
    """Load a model folder as a classifier of texts with the given labels.

    The head is what stands behind the base model, and what the folder has no weights for; drawn anew from `seed`. A
    folder that is a classifier of the same labels already keeps its head, and their order. Raises `CheckpointError`.
    """
    require_transformers()
    try:
        with quiet_transformers():
            known = transformers.AutoConfig.from_pretrained(folder, local_files_only=True).label2id or {}
            same = set(known) == set(labels)
            order = tuple(sorted(known, key=known.__getitem__)) if same else tuple(labels)
            stored = _stored(folder)
            wide = torch.float64 if stored[""] == torch.float64 else torch.float32
            torch.manual_seed(seed)
            model, info = transformers.AutoModelForSequenceClassification.from_pretrained(
                folder, local_files_only=True, dtype=wide, output_loading_info=True,
                ignore_mismatched_sizes=True, num_labels=len(order), problem_type="single_label_classification",
                attn_implementation=ATTENTION, id2label=dict(enumerate(order)),
                label2id={label: at for at, label in enumerate(order)},
            )  # fmt: skip
    except _UNREADABLE as error:
        raise CheckpointError(f"{folder}: cannot be loaded as a classifier: {_first_line(error)}") from None
    for value in model.parameters():  # out of the file's mapping: it may change, and would be read page by page
        value.data = value.data.clone()
    model.config.dtype = stored[""]
    fresh = {*info["missing_keys"], *(key[0] for key in info["mismatched_keys"])}
    _require_body(folder, model, fresh)
    body = model.base_model_prefix + "."
    dtypes = {name: stored.get(name, stored.get(name.removeprefix(body), stored[""])) for name in model.state_dict()}
    head = [name for name, _ in model.named_parameters() if name in fresh or not name.startswith(body)]
    if not same:
        _draw_anew(model, [name for name in head if name not in fresh], seed)
    return Classifier(model, head, order, {"": stored[""], **dtypes})


def _stored(folder: str | os.PathLike[str]) -> dict[str, torch.dtype]:
    """The dtypes of a folder's float tensors, and under "" that of most entries. Raises `CheckpointError`."""
    tensors = open_checkpoint(folder).tensors
    dtypes = {name: _FLOATS[tensor.dtype.name] for name, tensor in tensors.items() if tensor.dtype.name in _FLOATS}
    entries: Counter[torch.dtype] = Counter()
    for name, dtype in dtypes.items():
        entries[dtype] += tensors[name].words
    return {"": max(entries, key=entries.__getitem__, default=torch.float32), **dtypes}


def _require_body(folder: str | os.PathLike[str], model: nn.Module, fresh: set[str]) -> None:
    """Raise `CheckpointError` if the folder has no weights for part of the embeddings or the layers."""
    prefixes = tuple(f"{prefix}." for prefix, _ in _layers(model))
    lacking = sorted(name for name in fresh if name.startswith(prefixes) or "embeddings." in name)
    if lacking:
        raise CheckpointError(f"{folder}: its weights lack {lacking[0]!r} ({len(lacking)} such tensors of the body)")


def _draw_anew(model: nn.Module, names: Sequence[str], seed: int) -> None:
    """Give parameters of the head, trained for other labels, the values that a new head begins with."""
    if names:
        torch.manual_seed(seed)
        with quiet_transformers():
            drawn = transformers.AutoModelForSequenceClassification.from_config(model.config).float()
        new, own = dict(drawn.named_parameters()), dict(model.named_parameters())
        for name in names:
            own[name].data = new[name].data


def require_room(model: nn.Module, longest: int) -> None:
    """Raise `UsageError` if a text of `longest` tokens is longer than the model has positions for."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and name.endswith(_POSITIONS):
            room = module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
            if longest > room:
                raise UsageError(f"a text has {longest} tokens, the model has room for {room}: --max-length {room}")


def set_dropout(model: nn.Module, probability: float) -> None:
    """Give all dropout modules one probability; the configuration, which the result carries, stays as it is."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = probability


def build_classifier(config: dict[str, Any]) -> nn.Module:
    """Build a classifier of the given configuration, with weights of no meaning."""
    require_transformers()
    with quiet_transformers():
        made = transformers.AutoConfig.for_model(**config)
        model: nn.Module = transformers.AutoModelForSequenceClassification.from_config(made)
    return model


def config_of(model: nn.Module) -> str:
    """The model's configuration as its config.json holds it."""
    config: Any = model.config
    config.architectures = [type(model).__name__]  # as save_pretrained notes it
    members = json.loads(config.to_json_string(use_diff=True))
    names = {str(at): label for at, label in config.id2label.items()}  # left out there if they are LABEL_0, LABEL_1
    members |= {"id2label": names, "label2id": dict(config.label2id)}
    return json.dumps(members, indent=2, sort_keys=True) + "\n"


def encoder_layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The names and modules of the transformer's layers: the longest list of modules in it.

    Raises `UsageError` if there is none.
    """
    layers = _layers(model)
    if not layers:
        raise UsageError(f"{type(model).__name__} has no list of layers; this method needs one")
    return layers


def _layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    lists = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    prefix, layers = max(lists, key=lambda item: len(item[1]), default=("", nn.ModuleList()))
    return [(f"{prefix}.{at}", layer) for at, layer in enumerate(layers)]


def top_layers(model: nn.Module, count: int) -> list[str]:
    """Name the parameters of the last `count` layers and of what follows them in the body (a pooler).

    Raises `UsageError` if the model has fewer layers.
    """
    layers = encoder_layers(model)
    if not 1 <= count <= len(layers):
        raise UsageError(f"the model has {len(layers)} layers; {count} of them cannot be trained")
    names = [name for name, _ in model.named_parameters()]
    below = [prefix for prefix, _ in layers[:-count]]
    last = max(at for at, name in enumerate(names) if name.startswith(layers[-1][0] + "."))
    top = tuple(prefix + "." for prefix, _ in layers if prefix not in below)
    return [name for at, name in enumerate(names) if name.startswith(top) or at > last]


def body_parameters(model: nn.Module, head: Sequence[str]) -> dict[str, nn.Parameter]:
    """The parameters outside the head by name, tied ones once: the pool a density is a fraction of."""
    return {name: value for name, value in model.named_parameters() if name not in set(head)}


def stored_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The tensors a checkpoint of the model holds, by name, tied ones once."""
    kept: dict[str, Tensor] = {}
    seen: set[tuple[int, tuple[int, ...]]] = set()
    for name, value in model.state_dict().items():
        place = (value.data_ptr(), tuple(value.shape))
        if value.numel() and place in seen:
            continue
        seen.add(place)
        kept[plain_name(name)] = value
    return kept


def plain_name(name: str) -> str:
    """The name a tensor has without an adapter library around its module."""
    return name.replace(".base_layer.", ".")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
