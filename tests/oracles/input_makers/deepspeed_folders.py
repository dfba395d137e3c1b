"""DeepSpeed's checkpoint of a ZeRO run, and the one file that its own `zero_to_fp32.py` makes of it."""

from __future__ import annotations

import os
import shutil
import tempfile

import deepspeed
import torch
from deepspeed.utils.zero_to_fp32 import convert_zero_checkpoint_to_fp32_state_dict

from input_makers.case import fresh, says, state, tune
from input_makers.small import small

SETTINGS = {
    "train_batch_size": 1, "bf16": {"enabled": True}, "zero_optimization": {"stage": 2},
    "zero_force_ds_cpu_optimizer": False, "zero_allow_untested_optimizer": True,
}  # fmt: skip
ONE_PROCESS = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
"""What a launcher would tell it."""
LEFT_OUT = "# DeepSpeed puts a script of its own here; only its name is kept.\n"


def main() -> None:
    os.environ |= ONE_PROCESS
    store = tempfile.NamedTemporaryFile()  # noqa: SIM115 - in use to the end; a file, so that no port is needed
    torch.distributed.init_process_group("gloo", init_method=f"file://{store.name}", rank=0, world_size=1)
    folder = fresh("deepspeed-consolidated", "deepspeed", "torch")
    told = {}
    for side in ("base", "tuned"):
        module = small().layers if side == "base" else tune(small()).layers
        told[side] = {name: tensor.float() for name, tensor in state(module.bfloat16()).items()}
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        engine, *_ = deepspeed.initialize(model=module, optimizer=optimizer, config=SETTINGS, dist_init_required=False)
        with tempfile.TemporaryDirectory() as work:
            engine.save_checkpoint(work, tag="global_step1")
            convert_zero_checkpoint_to_fp32_state_dict(work, str(folder / side), safe_serialization=False)
            if side == "tuned":
                raw = fresh("deepspeed-zero", "deepspeed", "torch") / "model"
                shutil.copytree(work, raw)
                for script in raw.glob("*.py"):
                    script.write_text(LEFT_OUT)
    says(folder, **told)


if __name__ == "__main__":
    main()
