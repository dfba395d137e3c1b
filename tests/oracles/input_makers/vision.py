"""timm: what it pushes to the hub, and what its training script saves."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from input_makers.case import fresh, says, state, tune

SIZES = {"img_size": 16, "patch_size": 8, "embed_dim": 8, "depth": 1, "num_heads": 2, "num_classes": 3}


def import_timm() -> Any:
    """Make timm importable without the compiled part of torchvision, which asks for CUDA; give it."""
    sys.path.append(str(Path(sys.prefix) / "torchvision"))  # apart: other tools load it where they see it, and fail
    for operator in ("nms", "qnms"):
        torch.library.define(f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import timm.models
    import timm.utils

    return timm


def main() -> None:
    timm = import_timm()
    """What timm's train script saves (`state_dict` beside its arguments), and what it pushes to the hub."""
    folder, script = fresh("timm", "timm", "safetensors", "torch"), fresh("timm-checkpoint", "timm", "torch")
    told = {}
    for side in ("base", "tuned"):
        torch.manual_seed(0)
        model = timm.create_model("vit_tiny_patch16_224", pretrained=False, **SIZES)
        if side == "tuned":
            tune(model)
        timm.models.save_for_hf(model, folder / side, model_args=SIZES, safe_serialization=True)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        saver = timm.utils.CheckpointSaver(
            model=model, optimizer=optimizer, checkpoint_dir=str(script), recovery_dir=str(script), max_history=1
        )
        saver.save_checkpoint(0, metric=0.5)
        (script / "last.pth.tar").rename(script / f"{side}.pth.tar")
        for rest in [*script.glob("model_best*"), *script.glob("checkpoint-*")]:
            rest.unlink()
        told[side] = state(model)
    says(folder, **told)
    says(script, **told)


if __name__ == "__main__":
    main()
