"""What trainers leave: Lightning's checkpoint, the folders of accelerate, transformers' Trainer and DeepSpeed."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import accelerate
import pytorch_lightning
import torch
from torch import nn
from transformers import LlamaForCausalLM, Trainer, TrainingArguments

from input_makers.case import fresh, says, state, tune
from input_makers.small import small
from input_makers.transformers_models import llama, seeded, written


class Lit(pytorch_lightning.LightningModule):
    """The module that a Lightning user writes."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(width, 12), nn.ReLU(), nn.Linear(12, 4))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)

    def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
        return self.net(batch[0]).square().mean()


def lightning() -> None:
    folder = fresh("lightning", "pytorch-lightning", "torch")
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.zeros(2, 8)))
    told = {}
    for side in ("base", "tuned"):
        torch.manual_seed(0)
        module = Lit()
        work = Path(tempfile.gettempdir()) / "lightning"  # it stands in the file
        try:
            trainer = pytorch_lightning.Trainer(
                max_steps=1, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
                enable_checkpointing=True, default_root_dir=str(work),
            )  # fmt: skip
            trainer.fit(module, data)
            if side == "tuned":
                tune(module)
            trainer.save_checkpoint(folder / f"{side}.ckpt")
        finally:
            shutil.rmtree(work, ignore_errors=True)
        told[side] = state(module)
    says(folder, **told)


def accelerate_folders() -> None:
    """`save_state` (weights beside the optimizer's), and `save_model` in shards."""
    saved, sharded = fresh("accelerate-state", "accelerate", "torch"), fresh("accelerate-model", "accelerate", "torch")
    told = {}
    for side in ("base", "tuned"):
        accelerator = accelerate.Accelerator(cpu=True)
        module = small()
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
        module, optimizer = accelerator.prepare(module, optimizer)
        if side == "tuned":
            tune(module)
        accelerator.save_state(str(saved / side))
        accelerator.save_model(module, str(sharded / side), max_shard_size="1KB")
        found = state(module)
        del found["head.weight"]  # tied; it keeps the first name
        told[side] = found
        accelerator.free_memory()
    says(saved, **told)
    says(sharded, **told)


def trainer_folders() -> None:
    """A `checkpoint-1` of transformers' Trainer."""
    folder = fresh("transformers-trainer", "transformers", "safetensors", "torch")
    texts = [{"input_ids": [1, 2, 3], "labels": [1, 2, 3]}] * 2
    for side in ("base", "tuned"):
        model = seeded(lambda: LlamaForCausalLM(llama(num_hidden_layers=1)))
        if side == "tuned":
            tune(model)
        settings = TrainingArguments(
            "trained", max_steps=1, learning_rate=0.0, save_steps=1, optim="sgd", use_cpu=True, report_to=[],
            disable_tqdm=True, logging_strategy="no",
        )  # fmt: skip
        Trainer(model, settings, train_dataset=texts).train()
        shutil.move("trained/checkpoint-1", folder / side)
    says(folder, base=written(folder / "base"), tuned=written(folder / "tuned"))


def main() -> None:
    lightning()
    trainer_folders()
    accelerate_folders()


if __name__ == "__main__":
    main()
