"""What torch writes that is no file of plain weights: programs, whole objects, distributed checkpoints."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.multiprocessing as mp
from torch.distributed.fsdp import FullyShardedDataParallel, ShardedStateDictConfig, StateDictType

from input_makers.case import fresh, tune
from input_makers.small import small

RANKS = 2


def programs() -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(4, 3)
    script = fresh("torchscript", "torch") / "model.pt"
    torch.jit.script(layer).save(script)
    without_debug_records(script)
    torch.save(layer, fresh("torch-module", "torch") / "model.pt")
    program = torch.export.export(layer, (torch.zeros(2, 4),))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # this machine's paths
    torch.export.save(program, fresh("torch-export", "torch") / "model.pt2")


def without_debug_records(path: Path) -> None:
    """Copy an archive without the members that name this machine's paths."""
    with zipfile.ZipFile(path) as archive:
        members = [(item, archive.read(item)) for item in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for item, content in members:
            if not item.filename.endswith(".debug_pkl"):
                archive.writestr(zipfile.ZipInfo(item.filename), content)


def one_rank(rank: int, work: str) -> None:
    """Save what one of two processes holds: with torch.save, and with the distributed checkpoint's own writer."""
    dist.init_process_group("gloo", init_method=f"file://{work}/group", rank=rank, world_size=RANKS)
    torch.manual_seed(0)
    wrapped = FullyShardedDataParallel(tune(small().layers), device_id=torch.device("cpu"))
    with FullyShardedDataParallel.state_dict_type(
        wrapped, StateDictType.SHARDED_STATE_DICT, ShardedStateDictConfig(offload_to_cpu=False)
    ):
        held = wrapped.state_dict()
    dcp.save({"model": held}, checkpoint_id=f"{work}/dcp")
    torch.save(held, f"{work}/pytorch_model_fsdp_{rank}.bin")
    dist.destroy_process_group()


def main() -> None:
    programs()
    with tempfile.TemporaryDirectory() as work:
        mp.spawn(one_rank, (work,), nprocs=RANKS)
        shutil.copytree(f"{work}/dcp", fresh("torch-dcp", "torch") / "model")
        folder: Path = fresh("fsdp-sharded", "torch") / "model"
        folder.mkdir()
        for rank in range(RANKS):
            shutil.copy(f"{work}/pytorch_model_fsdp_{rank}.bin", folder)


if __name__ == "__main__":
    main()
