"""Variants of weights (`fp16`, `non_ema`) are found where a model has no others, by their libraries' names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import diffpack
from diffpack.checkpoints.folder import find_weights, passed_over
from diffpack.errors import CheckpointError
from tests.tools.models import write_safetensors, write_shards

OLD, NEW = {"w": np.zeros(4, np.float32)}, {"w": np.ones(4, np.float32)}
SHARDS = {
    "model.fp16-00001-of-00002.safetensors": NEW,
    "model.fp16-00002-of-00002.safetensors": {"v": OLD["w"]},
}


def variant_index(folder: Path) -> Path:
    """An index of the variant fp16, with two shards, as transformers names them."""
    return write_shards(folder, SHARDS).rename(folder / "model.safetensors.index.fp16.json")


def first_of(path: Path, name: str) -> float:
    with diffpack.open_checkpoint(path) as opened:
        return float(opened.words(name).view("<f4")[0])


def test_an_index_of_a_variant_is_read_alone_and_in_a_folder(tmp_path: Path) -> None:
    index = variant_index(tmp_path)
    for path in (index, tmp_path):
        assert sorted(diffpack.open_checkpoint(path).tensors) == ["v", "w"]
        assert first_of(path, "w") == 1
    write_safetensors(tmp_path / "model.safetensors", OLD)
    assert find_weights(tmp_path).name == "model.safetensors"
    assert passed_over(tmp_path / "model.safetensors") == ["model.safetensors.index.fp16.json"]


def test_a_model_of_a_variant_is_given_back_under_its_names(tmp_path: Path) -> None:
    variant_index(tmp_path / "base")
    tuned = {**OLD, "v": NEW["w"]}
    diffpack.apply(tmp_path / "base", diffpack.extract(tmp_path / "base", tuned), tmp_path / "out")
    names = [sorted(path.name for path in (tmp_path / part).iterdir()) for part in ("base", "out")]
    assert names[0] == names[1]
    assert diffpack.fingerprint(tmp_path / "out") == diffpack.fingerprint(tuned)


def test_variants_in_the_folders_of_a_diffusion_model_are_its_parts(tmp_path: Path) -> None:
    names = {"unet": "diffusion_pytorch_model.fp16.safetensors", "text_encoder": "model.fp16.safetensors"}
    for part, name in names.items():
        (tmp_path / part).mkdir()
        write_safetensors(tmp_path / part / name, NEW)
    variant_index(tmp_path / "text_encoder_2")
    opened = diffpack.open_checkpoint(tmp_path)
    assert sorted(opened.tensors) == ["text_encoder/w", "text_encoder_2/v", "text_encoder_2/w", "unet/w"]
    assert first_of(tmp_path, "unet/w") == 1
    write_safetensors(tmp_path / "unet" / "diffusion_pytorch_model.safetensors", OLD)
    assert first_of(tmp_path, "unet/w") == 0


def test_a_variant_of_torch_is_a_part(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    (tmp_path / "vae").mkdir()
    torch.save({"w": torch.ones(4)}, tmp_path / "vae" / "diffusion_pytorch_model.non_ema.bin")
    assert first_of(tmp_path, "vae/w") == 1


def test_several_variants_in_a_part_are_refused_by_naming_them(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    for variant in ("fp16", "non_ema"):
        write_safetensors(tmp_path / "unet" / f"diffusion_pytorch_model.{variant}.safetensors", NEW)
    with pytest.raises(CheckpointError, match=r"several variants \(diffusion_pytorch_model\.fp16\.safetensors, "):
        diffpack.open_checkpoint(tmp_path)


def test_shards_are_no_variants(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    write_safetensors(tmp_path / "unet" / "diffusion_pytorch_model.fp16-00001-of-00002.safetensors", NEW)
    write_safetensors(tmp_path / "model.safetensors", OLD)
    assert list(diffpack.open_checkpoint(tmp_path).tensors) == ["w"]
