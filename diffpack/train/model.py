"""The model that is tuned: loaded from a folder without any network, its head told from its body."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from diffpack.errors import CheckpointError, MissingDependencyError, UsageError

with contextlib.suppress(ImportError):
    import transformers


ATTENTION = "eager"
"""How attention is computed while training: with dropout, torch's own kernel is a fifth slower on a processor."""


def require_transformers() -> None:
    """Raise `MissingDependencyError` if transformers is not installed."""
    if "transformers" not in globals():
        raise MissingDependencyError("transformers", "train", "the trainer")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from drawing bars and reporting a new head, which is what we asked for."""
    level = transformers.utils.logging.get_verbosity()
    bars = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.utils.logging.set_verbosity(level)
        if bars:
            transformers.utils.logging.enable_progress_bar()


def load_tokenizer(folder: str | os.PathLike[str]) -> Any:
    """Load the tokenizer of a model folder. Raises `CheckpointError`."""
    require_transformers()
    try:
        with _quiet():
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder}: its tokenizer cannot be loaded: {_first_line(error)}") from None
    if tokenizer.pad_token is None:
        raise CheckpointError(f"{folder}: its tokenizer has no padding token, so texts cannot share a batch; name one")
    return tokenizer


def load_classifier(folder: str | os.PathLike[str], labels: Sequence[str], seed: int) -> tuple[nn.Module, list[str]]:
    """Load a model folder as a classifier of texts; give it with the names of its head's parameters.

    The head is what the folder has no weights for, drawn anew from `seed`. Raises `CheckpointError`.
    """
    require_transformers()
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: at for at, label in enumerate(labels)}}
    torch.manual_seed(seed)
    try:
        with _quiet():
            model, info = transformers.AutoModelForSequenceClassification.from_pretrained(
                folder, local_files_only=True, dtype="auto", output_loading_info=True,
                ignore_mismatched_sizes=True, num_labels=len(labels), problem_type="single_label_classification",
                attn_implementation=ATTENTION, **names,
            )  # fmt: skip
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder}: cannot be loaded as a classifier: {_first_line(error)}") from None
    for value in model.parameters():  # out of the file's mapping: it may change, and would be read page by page
        value.data = value.data.clone()
    fresh = {*info["missing_keys"], *(key[0] for key in info["mismatched_keys"])}
    head = [name for name, _ in model.named_parameters() if name in fresh]
    if not head:  # a folder that is a classifier already
        body = model.base_model_prefix + "."
        head = [name for name, _ in model.named_parameters() if not name.startswith(body)]
    return model, head


def set_dropout(model: nn.Module, probability: float) -> None:
    """Give all dropout modules one probability; the configuration, which the result carries, stays as it is."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = probability


def build_classifier(config: dict[str, Any]) -> nn.Module:
    """Build a classifier of the given configuration, with weights of no meaning."""
    require_transformers()
    with _quiet():
        made = transformers.AutoConfig.for_model(**config)
        model: nn.Module = transformers.AutoModelForSequenceClassification.from_config(made)
    return model


def config_of(model: nn.Module) -> str:
    """Give the model's configuration as its config.json holds it."""
    config: Any = model.config
    config.architectures = [type(model).__name__]  # as save_pretrained notes it
    text: str = config.to_json_string(use_diff=True)
    return text


def encoder_layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Give the names and modules of the transformer's layers: the longest list of modules in it.

    Raises `UsageError` if there is none.
    """
    lists = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    if not lists:
        raise UsageError(f"{type(model).__name__} has no list of layers; this method needs one")
    prefix, layers = max(lists, key=lambda item: len(item[1]))
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
    """Give the parameters outside the head by name, tied ones once: the pool a density is a fraction of."""
    return {name: value for name, value in model.named_parameters() if name not in set(head)}


def stored_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Give the tensors a checkpoint of the model holds, by name, tied ones once."""
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
    """Give a tensor the name it has without an adapter library around its module."""
    return name.replace(".base_layer.", ".")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
