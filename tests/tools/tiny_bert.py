"""A tiny BERT of random weights with its tokenizer, and texts it can learn: everything made here, nothing fetched."""

from __future__ import annotations

import random
from pathlib import Path

import torch

WORDS = ["good", "bad", *(f"word{at}" for at in range(30))]
FAST = {"epochs": 2, "batch_size": 16, "max_length": 16}
"""Options of a run that takes a second."""
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def make_model(folder: Path) -> Path:
    """Write a model folder: two layers, 16 wide, with a pooler but no head."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    vocabulary = {word: at for at, word in enumerate([*SPECIAL, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )  # fmt: skip
    wrapped.save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32, initializer_range=0.2,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return folder


def make_texts(path: Path, count: int, seed: int, pairs: bool = False) -> Path:
    """Write texts of random words, one of them `good` or `bad`, which is the label."""
    rng = random.Random(seed)
    lines = ["text\ttext2\tlabel" if pairs else "text\tlabel"]
    for _ in range(count):
        label = rng.choice(["good", "bad"])
        words = rng.sample(WORDS[2:], rng.randint(2, 8))
        words.insert(rng.randrange(len(words) + 1), label)
        half = len(words) // 2
        text = f"{' '.join(words[:half])}\t{' '.join(words[half:])}" if pairs else " ".join(words)
        lines.append(f"{text}\t{label}")
    path.write_text("\n".join(lines) + "\n")
    return path
