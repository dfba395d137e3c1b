"""Small adapters in PEFT's layout, written by hand."""

from __future__ import annotations

import json

import numpy as np

from tests.tools.models import write_safetensors

RNG = np.random.default_rng(3)
BASE = {
    "m.q.weight": RNG.standard_normal((6, 4)).astype(np.float32),
    "m.q.bias": np.zeros(6, np.float32),
    "m.v.weight": RNG.standard_normal((4, 6)).astype(np.float32),
}
A, B = RNG.standard_normal((2, 4)).astype(np.float32), RNG.standard_normal((6, 2)).astype(np.float32)


def adapter(path, tensors, kind="LORA", **config):
    path.mkdir(exist_ok=True)
    (path / "adapter_config.json").write_text(json.dumps({"peft_type": kind, "r": 2, "lora_alpha": 4, **config}))
    write_safetensors(
        path / "adapter_model.safetensors", {f"base_model.model.{name}": x for name, x in tensors.items()}
    )
    return path


def shira(path, indices, values):
    return adapter(path, {"m.q.shira_indices": indices, "m.q.shira_weight": values}, "SHIRA")
