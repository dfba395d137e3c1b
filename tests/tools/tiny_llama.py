"""A tiny Llama of random weights, and adapters that PEFT itself trains (at random), saves and merges."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROWS = 20
"""Its vocabulary."""


def make_llama(folder: Path, *, tied: bool = False, labels: bool = False, bias: bool = False) -> Path:
    """Write a model folder: two layers, 8 wide; with `labels` one that classifies."""
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=ROWS, hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, tie_word_embeddings=tied, attention_bias=bias, pad_token_id=0,
    )  # fmt: skip
    kind = LlamaForSequenceClassification if labels else LlamaForCausalLM
    kind(config).save_pretrained(folder)
    return folder


def adapt(
    base: Path, folder: Path, config: Any, *, grown: int = 0, labels: bool = False, dtype: str = "float32",
    save_embedding_layers: Any = "auto",
) -> dict[str, np.ndarray]:  # fmt: skip
    """Let PEFT save an adapter of a base, with a vocabulary grown by some rows; give what it merges to."""
    import peft
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    kind = AutoModelForSequenceClassification if labels else AutoModelForCausalLM
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tied weights, of resized embeddings: that is what is tried
        model = kind.from_pretrained(base, dtype=getattr(torch, dtype))
        if grown:
            model.resize_token_embeddings(ROWS + grown)
        wrapped = peft.get_peft_model(model, config)
        generator = torch.Generator().manual_seed(7)
        for tensor in wrapped.parameters():
            if tensor.requires_grad:
                tensor.data += torch.randn(tensor.shape, generator=generator).to(tensor.dtype) * 0.3
        wrapped.save_pretrained(folder, save_embedding_layers=save_embedding_layers)
        merged = wrapped.merge_and_unload()
    return {name: tensor.detach().float().numpy() for name, tensor in merged.state_dict().items()}
