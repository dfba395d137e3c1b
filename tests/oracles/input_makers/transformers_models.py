"""transformers: one file, shards, .bin, models around a body (prefix and head), tied heads, fused experts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
)

from input_makers.case import fresh, says, state, tune

Make = Callable[[], Any]


def bert() -> BertConfig:
    return BertConfig(vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
                      max_position_embeddings=16, num_labels=3)  # fmt: skip


def llama(**settings: Any) -> LlamaConfig:
    sizes = {"vocab_size": 24, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2,
             "num_attention_heads": 2, "num_key_value_heads": 1}  # fmt: skip
    return LlamaConfig(**{**sizes, **settings})


def gpt2() -> GPT2Config:
    return GPT2Config(vocab_size=24, n_embd=8, n_layer=1, n_head=2, n_positions=16)


def mixtral() -> MixtralConfig:
    return MixtralConfig(vocab_size=24, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
                         num_key_value_heads=1, num_local_experts=4)  # fmt: skip


def seeded(make: Make) -> Any:
    torch.manual_seed(0)
    return make()


def written(folder: Path) -> dict[str, torch.Tensor]:
    """What safetensors itself says of all files of a folder."""
    return {name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(path).items()}


def pair(
    name: str, base: Make, tuned: Make | None = None, *, then: dict[str, Any] | None = None, **settings: Any
) -> Path:
    """Save a model, and the same tuned; with `tuned` another class around the same body, with `then` other settings."""
    folder = fresh(name, "transformers", "safetensors", "torch")
    body = seeded(base)
    body.save_pretrained(folder / "base", **settings)
    after = seeded(tuned or base)
    inside = state(getattr(body, body.base_model_prefix, body))
    getattr(after, after.base_model_prefix, after).load_state_dict(inside, strict=False)  # one may have a pooler more
    tune(after).save_pretrained(folder / "tuned", **{**settings, **(then or {})})
    says(folder, base=written(folder / "base"), tuned=written(folder / "tuned"))
    return folder


def bins() -> None:
    """pytorch_model.bin and its shards: transformers 5 writes none itself, huggingface_hub still does."""
    from huggingface_hub import save_torch_state_dict

    for name, size in (("transformers-bin", "1GB"), ("transformers-bin-shards", "3KB")):
        folder = fresh(name, "huggingface_hub", "transformers", "torch")
        told = {}
        for side in ("base", "tuned"):
            model = seeded(lambda: GPT2LMHeadModel(gpt2()))
            if side == "tuned":
                tune(model)
            model.config.save_pretrained(folder / side)
            save_torch_state_dict(model.state_dict(), folder / side, safe_serialization=False, max_shard_size=size,
                                  filename_pattern="pytorch_model{suffix}.bin")  # fmt: skip
            told[side] = state(model)
        says(folder, **told)


def main() -> None:
    transformers.logging.set_verbosity_error()
    pair("transformers", lambda: LlamaForCausalLM(llama()))
    pair("transformers-tied", lambda: LlamaForCausalLM(llama(tie_word_embeddings=True)))
    pair("transformers-bf16", lambda: LlamaForCausalLM(llama()).to(torch.bfloat16))
    pair("transformers-shards", lambda: LlamaForCausalLM(llama()), max_shard_size="3KB")
    pair("transformers-prefix", lambda: BertModel(bert()), lambda: BertForSequenceClassification(bert()))
    pair("transformers-head", lambda: BertForMaskedLM(bert()), lambda: BertForSequenceClassification(bert()))
    pair("transformers-moe", lambda: MixtralForCausalLM(mixtral()))
    pair("transformers-moe-fused", lambda: MixtralForCausalLM(mixtral()), save_original_format=False)
    pair("transformers-moe-to-fused", lambda: MixtralForCausalLM(mixtral()), then={"save_original_format": False})
    bins()


if __name__ == "__main__":
    main()
