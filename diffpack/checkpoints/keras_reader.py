"""Archives of Keras 3 (`.keras`), to read: zip archives in which the weights are an HDF5 file."""

from __future__ import annotations

from pathlib import Path

from diffpack.checkpoints.hdf5_contents import explained
from diffpack.checkpoints.hdf5_reader import Hdf5Checkpoint
from diffpack.checkpoints.weights_file import WeightsFile
from diffpack.checkpoints.zip_members import ZipMembers
from diffpack.errors import CheckpointError
from diffpack.support.names import printable

_WEIGHTS = "model.weights.h5"


class KerasCheckpoint(Hdf5Checkpoint):
    """One `.keras` file: the tensors of its `model.weights.h5`, read where they lie in the archive.

    Its other members, among them the model's configuration, are in no diff: `left_out` names them. Raises
    `CheckpointError` for a damaged archive, or one that was packed anew (Keras stores, it does not compress).
    """

    layout = "keras"

    def __init__(self, path: Path, *, mmap: bool = True) -> None:
        file = WeightsFile(path, mmap=False)
        with explained(str(path), "damaged, or no archive of Keras 3"):
            members = ZipMembers(file)
            others = [printable(name) for name in sorted(members.infos) if name != _WEIGHTS]
            if _WEIGHTS not in members.infos or not members.is_stored(_WEIGHTS):
                raise CheckpointError(
                    f"{path}: no {_WEIGHTS} lies in it as it is: unpack it and name that file, or save it with Keras"
                )
            part = members.place(_WEIGHTS)
        file.close()
        super().__init__(path, mmap=mmap, part=part)
        self.left_out += others
