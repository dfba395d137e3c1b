"""bitsandbytes on the processor, through transformers: 4 bits packed into uint8, and int8 with its scales."""

from __future__ import annotations

import tempfile

import torch
from transformers import BitsAndBytesConfig, LlamaForCausalLM

from input_makers.case import fresh, says, tune
from input_makers.transformers_models import llama, seeded, written


def packed(name: str, **settings: object) -> None:
    folder = fresh(name, "bitsandbytes", "transformers", "safetensors", "torch")
    for side in ("base", "tuned"):
        model = seeded(lambda: LlamaForCausalLM(llama(num_hidden_layers=1)))
        with tempfile.TemporaryDirectory() as work:
            (tune(model) if side == "tuned" else model).save_pretrained(work)
            quantised = LlamaForCausalLM.from_pretrained(
                work, quantization_config=BitsAndBytesConfig(**settings), device_map="cpu", dtype=torch.float32
            )
        quantised.save_pretrained(folder / side)
    says(folder, base=written(folder / "base"), tuned=written(folder / "tuned"))


def main() -> None:
    packed("bitsandbytes-nf4", load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    packed("bitsandbytes-int8", load_in_8bit=True)


if __name__ == "__main__":
    main()
