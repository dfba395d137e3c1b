"""PEFT's adapters, taken as models of their own (adapter A to adapter B), and mergekit's output."""

from __future__ import annotations

import tempfile

import peft
import torch
from safetensors.torch import load_file
from transformers import LlamaForCausalLM

from input_makers.case import fresh, says, tune
from input_makers.transformers_models import llama, seeded, written


def lora(name: str, *, grown: bool = False) -> None:
    """An adapter and the same trained on: factors alone, or with a head that is saved whole."""
    folder = fresh(name, "peft", "transformers", "safetensors", "torch")
    told = {}
    for side in ("base", "tuned"):
        model = seeded(lambda: LlamaForCausalLM(llama()))
        config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False,
                                 modules_to_save=["lm_head"] if grown else None)  # fmt: skip
        torch.manual_seed(4)
        wrapped = peft.get_peft_model(model, config)
        if side == "tuned":
            for part in wrapped.modules():
                if isinstance(part, peft.tuners.lora.LoraLayer):
                    tune(part.lora_A)
                    tune(part.lora_B)
        wrapped.save_pretrained(folder / side)
        (folder / side / "README.md").unlink(missing_ok=True)
        told[side] = load_file(folder / side / "adapter_model.safetensors")
    says(folder, **told)


def merged() -> None:
    """A model that `merge_and_unload` made of a base and an adapter: written by transformers."""
    folder = fresh("peft-merged", "peft", "transformers", "safetensors", "torch")
    model = seeded(lambda: LlamaForCausalLM(llama()))
    model.save_pretrained(folder / "base")
    torch.manual_seed(4)
    wrapped = peft.get_peft_model(
        model, peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    )
    wrapped.merge_and_unload().save_pretrained(folder / "tuned")
    says(folder, base=written(folder / "base"), tuned=written(folder / "tuned"))


def mergekit() -> None:
    """Its command's output for a linear merge of two models, the base being one of them."""
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    folder = fresh("mergekit", "mergekit", "transformers", "safetensors", "torch")
    with tempfile.TemporaryDirectory() as work:
        model = seeded(lambda: LlamaForCausalLM(llama()))
        model.save_pretrained(f"{work}/a")
        tune(model).save_pretrained(f"{work}/b")
        for side, weight in (("base", 0.0), ("tuned", 0.5)):
            config = MergeConfiguration.model_validate({
                "merge_method": "linear", "dtype": "float32",
                "models": [{"model": f"{work}/a", "parameters": {"weight": 1.0}},
                           {"model": f"{work}/b", "parameters": {"weight": weight}}],
            })  # fmt: skip
            run_merge(
                config, str(folder / side), MergeOptions(copy_tokenizer=False, write_model_card=False, quiet=True)
            )
    says(folder, base=written(folder / "base"), tuned=written(folder / "tuned"))


def main() -> None:
    lora("peft-lora")
    lora("peft-lora-head", grown=True)
    merged()
    mergekit()


if __name__ == "__main__":
    main()
