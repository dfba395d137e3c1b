"""GPTQModel: a Llama of four bits, packed into int32 words (qweight, qzeros, scales, g_idx)."""

from __future__ import annotations

import tempfile

import torch
from gptqmodel import BACKEND, GPTQModel, QuantizeConfig
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from input_makers.case import fresh, says, tune
from input_makers.transformers_models import seeded, written

WORDS = 24
ACROSS = 32
"""What a row is packed by: the least width."""


def llama() -> LlamaForCausalLM:
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=WORDS, hidden_size=ACROSS, intermediate_size=ACROSS, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, head_dim=ACROSS, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    ))  # fmt: skip


def tokenizer() -> PreTrainedTokenizerFast:
    words = ["<pad>", "<s>", "</s>", *(f"w{at}" for at in range(WORDS - 3))]
    plain = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token="<pad>"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<pad>"
    )


def main() -> None:
    folder = fresh("gptq", "gptqmodel", "transformers", "safetensors", "torch")
    for side in ("base", "tuned"):
        with tempfile.TemporaryDirectory() as work:
            model = seeded(llama)
            (tune(model) if side == "tuned" else model).save_pretrained(work)
            tokenizer().save_pretrained(work)
            torch.manual_seed(1)
            settings = QuantizeConfig(bits=4, group_size=16, desc_act=True, offload_to_disk=False)
            packed = GPTQModel.load(work, settings, device="cpu", backend=BACKEND.TORCH)
            texts = [{"input_ids": torch.randint(3, WORDS, (1, 16)), "attention_mask": torch.ones(1, 16).long()}
                     for _ in range(4)]  # fmt: skip
            packed.quantize(texts, batch_size=1)
            packed.save(str(folder / side))
        (folder / side / "quant_log.csv").unlink(missing_ok=True)  # how long it took
    says(folder, base=written(folder / "base"), tuned=written(folder / "tuned"))


if __name__ == "__main__":
    main()
