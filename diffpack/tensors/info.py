"""What is known of a tensor without reading it."""

from __future__ import annotations

from dataclasses import dataclass

from diffpack.tensors.dtypes import DType


@dataclass(frozen=True)
class TensorInfo:
    """What is known of a tensor without reading it."""

    dtype: DType
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor's data."""
        return self.dtype.nbytes(self.shape)

    @property
    def words(self) -> int:
        """Words of the tensor's data."""
        return self.dtype.words(self.shape)

    def __str__(self) -> str:
        return f"{self.dtype.name}{list(self.shape)}"
