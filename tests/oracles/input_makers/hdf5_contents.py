"""What h5py says an HDF5 file holds, also one inside a .keras archive."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import h5py
import numpy as np


def datasets(path: Path) -> dict[str, np.ndarray]:
    """All datasets by their paths."""
    stream: io.BytesIO | Path = path
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            stream = io.BytesIO(archive.read("model.weights.h5"))
    found: dict[str, np.ndarray] = {}
    with h5py.File(stream) as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return found
