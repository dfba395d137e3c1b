"""Tiny models of the families of transformers, with random weights: a base, and a task of it with a head and labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.tools.live_models import BERT, GPT2, LLAMA, quiet, scatter

_ROBERTA = {**BERT, "pad_token_id": 1}
_DISTILBERT = {
    "vocab_size": 32, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "max_position_embeddings": 32,
}  # fmt: skip
_T5 = {"vocab_size": 20, "d_model": 8, "d_kv": 4, "d_ff": 16, "num_layers": 2, "num_heads": 2}
_VIT = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "image_size": 8,
    "patch_size": 4,
}  # fmt: skip
FAMILIES: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "bert": ("BertConfig", "BertModel", "BertForSequenceClassification", BERT),
    "roberta": ("RobertaConfig", "RobertaModel", "RobertaForSequenceClassification", _ROBERTA),
    "distilbert": ("DistilBertConfig", "DistilBertModel", "DistilBertForSequenceClassification", _DISTILBERT),
    "gpt2": ("GPT2Config", "GPT2LMHeadModel", "GPT2LMHeadModel", GPT2),
    "llama": ("LlamaConfig", "LlamaForCausalLM", "LlamaForCausalLM", LLAMA),
    "t5": ("T5Config", "T5ForConditionalGeneration", "T5ForConditionalGeneration", _T5),
    "vit": ("ViTConfig", "ViTModel", "ViTForImageClassification", _VIT),
}
"""The class of the configuration, of the base, of the task, and what the configuration is given."""
LABELS = {0: "bad", 1: "good", 2: "fair"}


def make_base(family: str, folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    """Save the base of a family."""
    import transformers

    config, body, _, settings = FAMILIES[family]
    with quiet():
        torch.manual_seed(0)
        model = getattr(transformers, body)(getattr(transformers, config)(**settings))
        scatter(model, 7)
        model.to(dtype).save_pretrained(folder)
    return folder


def make_task(family: str, base: Path, folder: Path, every: int = 2, seed: int = 3) -> nn.Module:
    """Save a task of a base: its head, with labels, and changes in every so-manieth other parameter."""
    import transformers

    _, body, head, _ = FAMILIES[family]
    labels = {} if head == body else {"id2label": LABELS, "label2id": {label: at for at, label in LABELS.items()}}
    with quiet():
        torch.manual_seed(seed)
        model: Any = getattr(transformers, head).from_pretrained(base, dtype="auto", **labels)
        scatter(nn.ParameterList(list(model.parameters())[::every]), seed, 0.1)
        model.save_pretrained(folder)
    return model


def example(family: str) -> dict[str, torch.Tensor]:
    """What a model of a family is asked."""
    if family == "vit":
        return {"pixel_values": torch.linspace(-1, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8)}
    tokens = torch.tensor([[3, 4, 5, 6], [7, 8, 9, 10]])
    return {"input_ids": tokens} | ({"decoder_input_ids": tokens} if family == "t5" else {})
