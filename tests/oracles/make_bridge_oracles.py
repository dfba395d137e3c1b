"""Freeze files other tools write, and what they make of files diffpack writes: the folder `bridges` beside this script.

    make oracle-bridges

Runs in an environment of its own (benchmarks/requirements-oracle-bridges.txt) that has diffpack too. PEFT writes and
merges adapters, ModelExpress publishes and receives delta directories, scipy saves matrices, torch saves what
composable-sft would. Each case is a folder with what was written and `merged.safetensors`, the tool's own result.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import peft
import scipy.sparse
import torch
import torch.distributed as dist
from modelexpress_rl import refit_pb2
from modelexpress_rl.inference.receiver import (
    ObjectStorageGeneratorConfig,
    ObjectStorageType,
    WeightPayloadFormat,
    _LocalCheckpoint,
    _S3Version,
)
from modelexpress_rl.train.methods.canonical_delta import CanonicalDeltaPublicationMethod
from modelexpress_rl.version import WeightVersionRef
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

import diffpack

HERE = Path(__file__).parent / "bridges"
Tensors = dict[str, torch.Tensor]


class Small(nn.Module):
    """A linear, an embedding, a convolution, a transposed linear layer, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.query = nn.Linear(8, 12)
        self.value = nn.Linear(12, 8)
        self.conv = nn.Conv2d(4, 6, 3)
        self.turned = Conv1D(10, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.value(self.query(self.embed(ids))))


def small(dtype: torch.dtype = torch.float32) -> Small:
    torch.manual_seed(2026)
    return Small().to(dtype)


def state(model: nn.Module) -> Tensors:
    return {name: tensor.detach().clone().contiguous() for name, tensor in model.state_dict().items()}


def fresh(name: str) -> Path:
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def randomise(model: nn.Module) -> None:
    """Give every trainable tensor values a training could have given it."""
    generator = torch.Generator().manual_seed(7)
    for tensor in model.parameters():
        if tensor.requires_grad:
            tensor.data += (torch.randn(tensor.shape, generator=generator) * 0.05).to(tensor.dtype)


def adapter(name: str, config: peft.PeftConfig, dtype: torch.dtype = torch.float32) -> None:
    """Let PEFT write an adapter and merge it."""
    folder = fresh(name)
    wrapped = peft.get_peft_model(small(dtype), config, autocast_adapter_dtype=False)
    randomise(wrapped)
    wrapped.save_pretrained(folder / "adapter")
    (folder / "adapter" / "README.md").unlink(missing_ok=True)
    save_file(state(small(dtype)), folder / "base.safetensors")
    save_file(state(wrapped.merge_and_unload()), folder / "merged.safetensors")


def lora(**settings: Any) -> peft.LoraConfig:
    return peft.LoraConfig(**{"r": 2, "lora_alpha": 3, "init_lora_weights": False, **settings})


def adapters() -> None:
    plain = ["query", "value", "embed", "conv"]
    adapter(
        "lora",
        lora(
            target_modules=plain, modules_to_save=["head"], rank_pattern={"query": 4}, alpha_pattern={"query": 5},
            bias="lora_only",
        ),
    )  # fmt: skip
    adapter("lora-bf16", lora(target_modules=plain), torch.bfloat16)
    adapter("lora-rslora", lora(target_modules=["query", "value"], use_rslora=True, lora_bias=True))
    adapter("lora-turned", lora(target_modules=["turned"], fan_in_fan_out=True))
    adapter("lora-dora", lora(target_modules=["query"], use_dora=True))
    adapter(
        "shira",
        peft.ShiraConfig(
            r=1, target_modules=["query", "value"], init_weights=False, random_seed=3, modules_to_save=["head"]
        ),
    )


def ours_to_peft() -> None:
    """Let PEFT load and merge a SHiRA adapter diffpack wrote."""
    folder = fresh("shira-ours")
    base = state(small())
    tuned = {name: tensor.clone() for name, tensor in base.items()}
    for name, places in {"query.weight": [0, 5, 17, 95], "value.weight": [1, 2, 3]}.items():
        tuned[name].view(-1)[places] += torch.linspace(0.1, 0.4, len(places))
    save_file(base, folder / "base.safetensors")
    save_file(tuned, folder / "tuned.safetensors")
    diff = diffpack.extract(folder / "base.safetensors", folder / "tuned.safetensors", values="f32", layout=False)
    diffpack.convert(diff, folder / "adapter", to="peft-shira")
    merged = peft.PeftModel.from_pretrained(small(), str(folder / "adapter")).merge_and_unload()
    save_file(state(merged), folder / "merged.safetensors")


class Folder:
    """Stands for the object store: one folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def put(self, *, uri: str, data: bytes) -> None:
        (self.path / uri.rsplit("/", 1)[1]).write_bytes(data)

    def get(self, uri: str, *_: Any, **__: Any) -> bytes:
        return (self.path / uri.rsplit("/", 1)[1]).read_bytes()

    def close(self) -> None:
        pass


URI = "s3://store/stream/weight_v000001/model.safetensors.index.json"


def updated(base: Tensors) -> Tensors:
    """An update as RL makes it: few entries, one of them negative zero and one NaN."""
    generator = torch.Generator().manual_seed(11)
    tuned = {}
    for name, tensor in base.items():
        chosen = torch.rand(tensor.shape, generator=generator) < 0.05
        tuned[name] = torch.where(chosen, tensor * 1.01, tensor)
    tuned["query.bias"][0] = -0.0
    tuned["query.bias"][1] = float("nan")
    return tuned


def modelexpress_writes() -> None:
    folder = fresh("delta-xor")
    base = state(small(torch.bfloat16))
    tuned = updated(base)
    save_file(base, folder / "base.safetensors")
    (folder / "delta").mkdir()
    target = refit_pb2.WeightVersion(model_name="small", base_version_id="000000")
    target.payload_format = refit_pb2.WEIGHT_PAYLOAD_FORMAT_XOR_DELTA
    target.object_storage.storage_type = refit_pb2.OBJECT_STORAGE_TYPE_S3
    target.object_storage.uri = URI
    answer = refit_pb2.GetWeightVersionResponse(version=target)
    service = SimpleNamespace(GetWeightVersion=lambda *_, **__: answer)
    method = CanonicalDeltaPublicationMethod(
        config=SimpleNamespace(initial_base_version_id="000000", uri_prefix="s3://store/stream"), model_name="small",
        service=lambda: service, rpc_timeout_seconds=1.0, process_group=None, s3=Folder(folder / "delta"),
        read_seed_tensor=lambda name: base[name].contiguous().view(torch.uint8).reshape(-1).numpy(),
    )  # fmt: skip
    method.prepare_base(hf_tensor_iter=[list(base.items())])
    reference = WeightVersionRef(version_id="000001")
    method.publish(version=reference, staged=method.stage(version=reference, hf_tensor_iter=[list(tuned.items())]))
    received(folder, folder / "delta")


def received(folder: Path, delta: Path) -> None:
    """Let ModelExpress apply a delta directory, and keep what it arrives at."""
    with tempfile.TemporaryDirectory() as work:
        seed = Path(work) / "seed"
        seed.mkdir()
        shutil.copy(folder / "base.safetensors", seed / "model.safetensors")
        config = ObjectStorageGeneratorConfig(
            storage_type=ObjectStorageType.S3, initial_base_version_id="000000", seed_checkpoint_path=seed,
            refit_checkpoint_dir=Path(work) / "checkpoints",
        )  # fmt: skip
        checkpoint = _LocalCheckpoint(model_name="small", config=config, s3=Folder(delta))
        checkpoint.initialize()
        wanted = _S3Version(
            version_id="000001", base_version_id="000000", payload_format=WeightPayloadFormat.XOR_DELTA, uri=URI
        )
        prepared = checkpoint.prepare_chain((wanted,))
        save_file(load_file(next(Path(prepared.path).glob("*.safetensors"))), folder / "merged.safetensors")


def modelexpress_reads() -> None:
    folder = fresh("delta-ours")
    base = state(small(torch.bfloat16))
    save_file(base, folder / "base.safetensors")
    save_file(updated(base), folder / "tuned.safetensors")
    diff = diffpack.extract(folder / "base.safetensors", folder / "tuned.safetensors", layout=False)
    diffpack.convert(
        diff, folder / "delta", to="sglang-delta", base=folder / "base.safetensors",
        options={"encoding": "xor", "checksum": "adler32", "version": "1"},
    )  # fmt: skip
    received(folder, folder / "delta")


def matrices() -> None:
    folder = fresh("scipy")
    rng = np.random.default_rng(5)
    base = {
        name: tensor
        for name, tensor in state(small()).items()
        if name in ("query.weight", "query.bias", "value.weight")
    }
    save_file(base, folder / "base.safetensors")
    merged = {}
    (folder / "matrices").mkdir()
    for form, (name, tensor) in zip(("csr", "coo", "csc"), sorted(base.items()), strict=True):
        array = tensor.numpy()
        change = np.where(rng.random(array.shape) < 0.2, rng.normal(0, 0.1, array.shape), 0).astype(np.float32)
        flat = change.reshape(1, -1) if change.ndim < 2 else change
        scipy.sparse.save_npz(folder / "matrices" / f"{name}.npz", scipy.sparse.coo_array(flat).asformat(form))
        merged[name] = torch.from_numpy(array + change)
    save_file(merged, folder / "merged.safetensors")


def sparse_tuning() -> None:
    """What composable-sft's own `SFT.save` hands to torch.save: gaps as a list of integers, the first one numpy's."""
    folder = fresh("composable-sft")
    rng = np.random.default_rng(6)
    base = {name: tensor for name, tensor in state(small()).items() if not name.startswith("turned")}
    save_file(base, folder / "base.safetensors")
    merged = {name: tensor.clone() for name, tensor in base.items()}
    diffs: dict[str, Any] = {}
    for name in ("query.weight", "query.bias", "conv.weight"):
        tensor = base[name]
        change = torch.where(torch.from_numpy(rng.random(tuple(tensor.shape)) < 0.2), torch.randn(tensor.shape), 0.0)
        sparse = change.to_sparse().coalesce()
        flat = np.ravel_multi_index(tuple(sparse.indices().numpy()), tuple(tensor.shape), order="F")
        order = np.argsort(flat)
        steps: list[Any] = np.diff(flat[order]).tolist()
        diffs[name] = {
            "size": tensor.size(), "index_steps": [flat[order][0], *steps], "values": sparse.values()[order.tolist()],
        }  # fmt: skip
        merged[name] = tensor + change
    dense = {"head.weight": nn.Parameter(torch.randn(4, 8)), "head.bias": torch.randn(4)}
    torch.save({"diffs": diffs, "abs": dense}, folder / "pytorch_diff.bin")
    merged |= {name: tensor.detach().clone() for name, tensor in dense.items()}
    save_file(merged, folder / "merged.safetensors")


def tools() -> Mapping[str, str]:
    return {tool: version(tool) for tool in ("peft", "modelexpress", "scipy", "torch", "numpy")}


def main() -> None:
    warnings.simplefilter("ignore")
    torch.manual_seed(2026)
    with tempfile.TemporaryDirectory() as work:
        dist.init_process_group("gloo", init_method=f"file://{work}/group", rank=0, world_size=1)
        adapters()
        ours_to_peft()
        modelexpress_writes()
        modelexpress_reads()
        matrices()
        sparse_tuning()
        dist.destroy_process_group()
    text = json.dumps({"made by": "tests/oracles/make_bridge_oracles.py", "tools": tools()}, indent=1)
    (HERE / "oracles.json").write_text(text + "\n")
    size = sum(path.stat().st_size for path in HERE.rglob("*") if path.is_file())
    print(f"{sum(1 for path in HERE.iterdir() if path.is_dir())} cases, {size:,} bytes, {tools()}")


if __name__ == "__main__":
    main()
