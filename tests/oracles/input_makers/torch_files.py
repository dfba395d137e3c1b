"""torch.save, in its formats and as people fill it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from input_makers.case import fresh, says, state, tune
from input_makers.small import small


def sides() -> dict[str, Any]:
    return {"base": small(), "tuned": tune(small())}


def plain(name: str, ending: str, **settings: Any) -> None:
    folder = fresh(name, "torch")
    found = sides()
    for side, module in found.items():
        torch.save(module.state_dict(), folder / f"{side}{ending}", **settings)
    says(folder, **{side: state(module) for side, module in found.items()})


def every_dtype() -> None:
    """A tensor of each dtype that people keep weights in, in safetensors and in a file of torch; few entries change."""
    whole, floats = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64), (
        torch.float8_e4m3fn, torch.float8_e5m2, torch.float16, torch.bfloat16, torch.float32, torch.float64,
    )  # fmt: skip
    torch.manual_seed(0)
    drawn = {dtype: (torch.randn(40) * 8).to(dtype) for dtype in (*whole, *floats)}
    drawn[torch.complex64] = torch.randn(40, dtype=torch.complex64)
    base = {str(dtype).removeprefix("torch."): tensor for dtype, tensor in drawn.items()}
    tuned = {name: tensor.clone() for name, tensor in base.items()}
    for tensor in tuned.values():
        tensor.view(torch.uint8)[-1] ^= 1  # the sign, exponent or lowest bit: another number
    for name, save, ending in (("safetensors", save_file, ".safetensors"), ("torch-dtypes", torch.save, ".bin")):
        folder = fresh(name, name.removesuffix("-dtypes"), "torch")
        for side, tensors in (("base", base), ("tuned", tuned)):
            save(tensors, folder / f"{side}{ending}")
        says(folder, base=base, tuned=tuned)


def trained() -> None:
    """A loop's own checkpoint: weights beside the state of training, and a loss that is a numpy number."""
    folder = fresh("torch-checkpoint", "torch")
    found = sides()
    for at, (side, module) in enumerate(found.items()):
        optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 5)
        torch.save({
            "epoch": at, "model_state_dict": module.state_dict(), "optimizer_state_dict": optimizer.state_dict(),
            "scheduler": scheduler.state_dict(), "loss": np.float64(0.5 + at), "rng_state": torch.get_rng_state()[:64],
        }, folder / f"{side}.pth.tar")  # fmt: skip
    says(folder, **{side: state(module) for side, module in found.items()})


def adversarial() -> None:
    """Two modules in one file, and an average of one: each keeps the name of its dict."""
    folder = fresh("torch-modules", "torch")
    told = {}
    for side, module in sides().items():
        parts = {"generator": module, "discriminator": torch.nn.Linear(6, 3), "params_ema": tune(small(), seed=9)}
        torch.manual_seed(3)
        parts["discriminator"].reset_parameters()
        if side == "tuned":
            tune(parts["discriminator"])
        torch.save({key: part.state_dict() for key, part in parts.items()}, folder / f"{side}.pt")
        told[side] = {f"{key}.{name}": tensor for key, part in parts.items() for name, tensor in state(part).items()}
    says(folder, **told)


def main() -> None:
    plain("torch-zip", ".pt")
    plain("torch-legacy", ".pth", _use_new_zipfile_serialization=False)
    plain("torch-th", ".th")
    trained()
    adversarial()
    every_dtype()


if __name__ == "__main__":
    main()
