"""Tiny transformers models of random weights: saved, loaded, and tuned."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

BERT = {
    "vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 32, "initializer_range": 0.2,
}  # fmt: skip
LLAMA = {
    "vocab_size": 20, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "tie_word_embeddings": True, "pad_token_id": 0,
}  # fmt: skip
GPT2 = {"vocab_size": 20, "n_embd": 8, "n_layer": 2, "n_head": 2, "n_positions": 16}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from reporting heads that are new, or are not there: that is what is tried."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def make(kind: str, folder: Path, extra: dict[str, torch.Tensor] | None = None) -> Path:
    """Save a model of a class of transformers; `extra` tensors go into its file, too."""
    import transformers

    family = next(name for name in ("Bert", "Llama", "GPT2") if kind.startswith(name))
    settings = {"Bert": BERT, "Llama": LLAMA, "GPT2": GPT2}[family]
    with quiet():
        torch.manual_seed(0)
        model = getattr(transformers, kind)(getattr(transformers, f"{family}Config")(**settings))
        scatter(model, 7)
        model.save_pretrained(folder)
    file = folder / "model.safetensors"
    save_file({**load_file(file), **(extra or {})}, file, {"format": "pt"})
    return folder


def loaded(kind: str, folder: Path, **options: Any) -> nn.Module:
    """Load a saved model as a class of transformers."""
    import transformers

    with quiet():
        torch.manual_seed(1)  # of heads the file lacks
        model: nn.Module = getattr(transformers, kind).from_pretrained(folder, **options)
    return model


def scatter(model: nn.Module, seed: int, density: float = 1.0) -> nn.Module:
    """Add noise to some entries of all parameters (all biases and norms too, which begin as zeros and ones)."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in model.parameters():
            mask = torch.rand(value.shape, generator=generator) <= density
            value.add_(mask * torch.randn(value.shape, generator=generator) * 0.1)
    return model


def tuned(kind: str, base: Path, folder: Path) -> nn.Module:
    """Tune a saved model as a class of transformers, and save what came of it."""
    model = scatter(loaded(kind, base), 3, 0.2)
    with quiet():
        model.save_pretrained(folder)
    return model
