"""Freeze adapters that old versions of PEFT write, and what they merge of them: folders `lora-<version>` in `bridges`.

    make oracle-bridges

Runs once for each version, which stands before all others on the path: a tiny BERT with a head, which its base has not.
"""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import peft
import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertForSequenceClassification

HERE = Path(__file__).parent / "bridges"
HEAD = "classifier."


def model() -> BertForSequenceClassification:
    torch.manual_seed(2026)
    config = BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, vocab_size=12,
        max_position_embeddings=8,
    )  # fmt: skip
    return BertForSequenceClassification(config)


def main() -> None:
    warnings.simplefilter("ignore")
    folder = HERE / f"lora-{peft.__version__}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    base = {name: tensor.clone() for name, tensor in model().state_dict().items() if not name.startswith(HEAD)}
    save_file(base, folder / "base.safetensors")
    config = peft.LoraConfig(
        task_type="SEQ_CLS", r=2, lora_alpha=3, lora_dropout=0.0, target_modules=["query", "value"], bias="all"
    )
    wrapped = peft.get_peft_model(model(), config)
    generator = torch.Generator().manual_seed(7)
    for tensor in wrapped.parameters():
        if tensor.requires_grad:
            tensor.data += torch.randn(tensor.shape, generator=generator) * 0.05
    wrapped.save_pretrained(str(folder / "adapter"))
    (folder / "adapter" / "README.md").unlink(missing_ok=True)
    tuner = wrapped if hasattr(wrapped, "merge_and_unload") else wrapped.base_model
    merged = tuner.merge_and_unload().state_dict()
    save_file({name: tensor.clone().contiguous() for name, tensor in merged.items()}, folder / "merged.safetensors")
    print(f"{folder.name}: {sum(path.stat().st_size for path in folder.rglob('*') if path.is_file()):,} bytes")


if __name__ == "__main__":
    main()
