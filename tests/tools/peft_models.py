"""Tiny transformers models of random weights, adapters that PEFT trains of them (at random), what it makes of these.

What PEFT is asked for is what it makes of an adapter it loads from disk: its settings are sorted there, and corrected.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

WORDS = 30
"""The vocabulary of all of them."""


def make_model(kind: str, folder: Path, dtype: str = "float32", **settings: Any) -> Path:
    """Write the folder of a model of a transformers class, two layers of 8."""
    import transformers

    torch.manual_seed(0)
    model_class = getattr(transformers, kind)
    size: dict[str, Any] = {
        "vocab_size": WORDS, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 16, "max_position_embeddings": 16, "pad_token_id": 0,
    }  # fmt: skip
    if kind.startswith(("Llama", "Mixtral")):
        size |= {"num_key_value_heads": 2}
    if kind.startswith("Mixtral"):
        size |= {"num_local_experts": 4, "num_experts_per_tok": 2}
    if kind.startswith("T5"):
        size = {
            "vocab_size": WORDS, "d_model": 8, "d_kv": 4, "d_ff": 16, "num_layers": 2, "num_heads": 2,
            "decoder_start_token_id": 0,
        }  # fmt: skip
    if kind.startswith("ViT"):
        size |= {"image_size": 8, "patch_size": 4}
    config = model_class.config_class(**(size | settings))
    model_class(config).to(getattr(torch, dtype)).save_pretrained(folder)
    return folder


def load_model(kind: str, folder: Path, dtype: str = "float32") -> Any:
    """Load a folder as a class. A head it lacks is drawn from one seed, so that it is the same each time."""
    import transformers

    torch.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(transformers, kind).from_pretrained(folder, dtype=getattr(torch, dtype)).eval()


def train_adapter(kind: str, base: Path, config: Any, folder: Path, dtype: str = "float32") -> Path:
    """Let PEFT wrap a model and save the adapter, with all that it would train moved at random."""
    import peft

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tied weights, of settings that it corrects: that is what is tried
        wrapped = peft.get_peft_model(load_model(kind, base, dtype), config)
        generator = torch.Generator().manual_seed(7)
        for tensor in wrapped.parameters():
            if tensor.requires_grad:
                tensor.data += (torch.randn(tensor.shape, generator=generator) * 0.3).to(tensor.dtype)
        wrapped.save_pretrained(folder)
    return folder


def load_adapted(kind: str, base: Path, adapter: Path, dtype: str = "float32") -> Any:
    """Let PEFT load an adapter. Raises `AssertionError` if it finds the adapter's tensors not all, or not of use."""
    import peft

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model = peft.PeftModel.from_pretrained(load_model(kind, base, dtype), adapter).eval()
    messages = [str(item.message) for item in told]
    assert not any("missing adapter keys" in message for message in messages), messages
    return model


def merge_adapter(kind: str, base: Path, adapter: Path, dtype: str = "float32") -> dict[str, np.ndarray]:
    """Let PEFT load an adapter and merge it; give the tensors as float32."""
    model = load_adapted(kind, base, adapter, dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return arrays(model.merge_and_unload())


def arrays(model: Any) -> dict[str, np.ndarray]:
    """A model's tensors, as float32."""
    return {name: tensor.detach().float().numpy().copy() for name, tensor in model.state_dict().items()}


def answers(model: Any) -> torch.Tensor:
    """What a model of words answers to all of them: its logits."""
    ids = torch.arange(WORDS).reshape(2, -1)
    inputs = {"input_ids": ids} | ({"decoder_input_ids": ids} if model.config.is_encoder_decoder else {})
    with torch.no_grad():
        found: torch.Tensor = model(**inputs).logits
    return found
