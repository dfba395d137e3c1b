"""Where a result is written: which files, in which layout, with which side files beside them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from diffpack.checkpoints.base import CheckpointWriter, Place
from diffpack.checkpoints.endings import (
    HDF5_SUFFIXES,
    KERAS_SUFFIX,
    NPZ_SUFFIX,
    TORCH_SUFFIXES,
    WRITTEN_SUFFIXES,
    ends_as_folder,
)
from diffpack.checkpoints.overwriting import model_folder, refuse_file_name
from diffpack.checkpoints.safetensors_header import make_header
from diffpack.checkpoints.safetensors_writer import SafetensorsWriter
from diffpack.checkpoints.written_file import create, writing
from diffpack.diff.layout import Headers, Index, recorded_layout
from diffpack.diff.sidefiles import side_contents
from diffpack.errors import UsageError
from diffpack.result.result import Result
from diffpack.result.weights_layout import metadata, open_weights, structure
from diffpack.support.atomic import AtomicStack
from diffpack.tensors.dtypes import Words


def open_output(
    output: str | os.PathLike[str],
    result: Result,
    *,
    files: bool = True,
    code: bool = False,
    verify: bool = True,
    replace: bool = False,
) -> CheckpointWriter:
    """Open a writer for the result: by the ending of `output`, else a folder laid out as the tuned or the base is.

    A slash at its end says that it is a folder, whatever its ending.

    With `verify` the writer raises `ResultMismatchError` in the end if files written in the recorded layout have
    another SHA-256 than the diff records. Raises `UsageError` if `output` does not tell a layout, or exists and is not
    to be replaced, or the diff holds code and `code` is false, `WrongBaseError` if the base's folder lacks a side file,
    `CorruptFileError` if the stored layout does not fit the result.
    """
    refuse_ending(output, base_is_folder=result.base.folder is not None)
    path = Path(output)
    name = "" if ends_as_folder(output) else path.name.lower()
    if name.endswith(NPZ_SUFFIX):
        from diffpack.checkpoints.npz_writer import NpzWriter

        return NpzWriter(path, result.tensors, replace=replace)
    if name.endswith(TORCH_SUFFIXES):
        from diffpack.checkpoints.torch_writer import TorchWriter

        return TorchWriter(path, result.tensors, result.ties, replace=replace)
    if name.endswith(HDF5_SUFFIXES):
        from diffpack.checkpoints.hdf5_writer import Hdf5Writer

        return Hdf5Writer(path, result.tensors, structure(result), replace=replace)
    recorded = recorded_layout(result.diff, result.base, result.tensors)
    layout = result.diff.manifest.layout
    sums = (layout.sha256 or ()) if layout is not None and verify else ()
    if name.endswith(".safetensors"):
        headers = recorded[0] if recorded is not None else []
        if len(headers) != 1:
            header = make_header(result.tensors, metadata(result.base))
            return SafetensorsWriter([(path, header)], replace=replace)
        expected = dict(zip([path], sums, strict=False))
        return SafetensorsWriter([(path, headers[0][1])], sha256=expected, replace=replace)
    contents = side_contents(result.diff, result.base, code=code) if files else {}
    return FolderWriter(path, result, recorded, contents, sums, replace=replace)


def refuse_ending(output: str | os.PathLike[str], *, base_is_folder: bool) -> None:
    """Raise `UsageError` if the ending of an output does not tell a layout, or is a file's and there is a folder."""
    path = Path(output)
    if ends_as_folder(output):
        return
    if path.name.lower().endswith(WRITTEN_SUFFIXES):
        if path.is_dir():
            raise UsageError(f"{path}: a folder; name the file to write, or end it with /")
        return
    if path.is_dir():
        return
    if path.suffix.lower() == KERAS_SUFFIX:
        raise UsageError(
            f"{path}: archives of Keras 3 are read, not written: write .weights.h5, which load_weights of a model reads"
        )
    refuse_file_name(output, WRITTEN_SUFFIXES)
    if path.suffix and not base_is_folder:
        raise UsageError(
            f"{path}: cannot tell a layout from its ending; use one of {', '.join(WRITTEN_SUFFIXES)}, or end it with / "
            "to write a folder"
        )


class FolderWriter(CheckpointWriter):
    """Writes a model folder: weights and side files into a temporary sibling that is renamed at the end."""

    def __init__(
        self,
        path: Path,
        result: Result,
        recorded: tuple[Headers, Index] | None,
        contents: Mapping[str, bytes],
        sha256: Sequence[str] = (),
        *,
        replace: bool = False,
    ) -> None:
        self._stack = AtomicStack()
        try:
            self._folder = self._stack.enter_context(model_folder(path, replace=replace, own=contents))
            for name, content in contents.items():
                with writing(self._folder / name):
                    (self._folder / name).parent.mkdir(parents=True, exist_ok=True)
                create(self._folder / name, content)
            self._writer = open_weights(self._folder, result, recorded, sha256)
        except BaseException:
            self._stack.discard()
            raise

    def write(self, name: str, offset: int, data: npt.NDArray[Any]) -> None:
        """Hand the words to the weights' writer."""
        self._writer.write(name, offset, data)

    def write_block(self, words: Words, places: Sequence[Place]) -> None:
        """Hand the words to the weights' writer."""
        self._writer.write_block(words, places)

    def publish(self) -> None:
        """Finish the weights, then rename the folder."""
        try:
            self._writer.publish()
        except BaseException:
            self._stack.discard()
            raise
        self._stack.close()

    def discard(self) -> None:
        """Remove the temporary folder."""
        self._writer.discard()
        self._stack.discard()
