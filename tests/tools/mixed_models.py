"""Tiny transformers models of random weights, what they are given, and what they answer, for mixed batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tests.tools.live_models import BERT, GPT2, LLAMA, quiet, scatter

LENGTH = 7
_T5 = {
    "vocab_size": 24, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2,
    "decoder_start_token_id": 0,
}  # fmt: skip
_DISTILBERT = {
    "vocab_size": 32, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "max_position_embeddings": 32,
}  # fmt: skip
_VIT = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "image_size": 8,
    "patch_size": 4,
}  # fmt: skip
_WHISPER = {
    "vocab_size": 24, "num_mel_bins": 4, "d_model": 16, "encoder_layers": 2, "decoder_layers": 2,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32,
    "max_source_positions": 6, "max_target_positions": 16, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "decoder_start_token_id": 1,
}  # fmt: skip

Inputs = dict[str, Tensor]


def _tokens(rows: int, words: int) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(3, words, (rows, LENGTH), generator=generator)


def _text(rows: int, words: int) -> Inputs:
    mask = torch.ones(rows, LENGTH, dtype=torch.long)
    mask[::2, -2:] = 0
    return {"input_ids": _tokens(rows, words), "attention_mask": mask}


def _pictures(rows: int) -> Inputs:
    return {"pixel_values": torch.randn(rows, 3, 8, 8, generator=torch.Generator().manual_seed(3))}


def _sounds(rows: int) -> Inputs:
    sounds = torch.randn(rows, 4, 12, generator=torch.Generator().manual_seed(3))
    return {"input_features": sounds, "decoder_input_ids": _tokens(rows, 24)}


class Kind(NamedTuple):
    """A class of models: its configuration, what it is given for so many rows, its head, and if it generates."""

    config: str
    settings: dict[str, Any]
    inputs: Callable[[int], Inputs]
    head: str
    generates: bool = False


def _translated(rows: int) -> Inputs:
    return {**_text(rows, 24), "decoder_input_ids": _tokens(rows, 24)}


KINDS: dict[str, Kind] = {
    "BertForSequenceClassification": Kind("BertConfig", BERT, lambda n: _text(n, 32), "classifier.weight"),
    "BertForMaskedLM": Kind("BertConfig", BERT, lambda n: _text(n, 32), "cls.predictions.transform.dense.weight"),
    "RobertaForSequenceClassification": Kind(
        "RobertaConfig", {**BERT, "pad_token_id": 1}, lambda n: _text(n, 32), "classifier.out_proj.weight"
    ),
    "DistilBertForSequenceClassification": Kind(
        "DistilBertConfig", _DISTILBERT, lambda n: _text(n, 32), "classifier.weight"
    ),
    "GPT2LMHeadModel": Kind("GPT2Config", GPT2, lambda n: _text(n, 20), "transformer.wte.weight", True),
    "LlamaForCausalLM": Kind("LlamaConfig", LLAMA, lambda n: _text(n, 20), "model.norm.weight", True),
    "T5ForConditionalGeneration": Kind("T5Config", _T5, _translated, "shared.weight", True),
    "ViTForImageClassification": Kind("ViTConfig", _VIT, _pictures, "classifier.weight"),
    "WhisperForConditionalGeneration": Kind("WhisperConfig", _WHISPER, _sounds, "model.encoder.conv1.weight"),
}


def tiny(kind: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A model of a class, of random weights, in evaluation mode."""
    import transformers

    with quiet():
        torch.manual_seed(0)
        config = getattr(transformers, KINDS[kind].config)(**KINDS[kind].settings)
        model: nn.Module = getattr(transformers, kind)(config)
    return scatter(model, 7).to(dtype).eval()


def inputs(kind: str, rows: int, dtype: torch.dtype = torch.float32) -> Inputs:
    """What a model of a class is given, for so many rows, floats in a dtype."""
    given = KINDS[kind].inputs(rows)
    return {name: value.to(dtype) if value.is_floating_point() else value for name, value in given.items()}
