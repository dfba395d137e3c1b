"""What torch calls our dtypes."""

from __future__ import annotations

from diffpack.tensors.dtypes import DTYPES, fits_array

TORCH = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "U32": "uint32",
    "I32": "int32", "U64": "uint64", "I64": "int64", "F16": "float16", "BF16": "bfloat16", "F32": "float32",
    "F64": "float64", "C64": "complex64", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz", "F8_E8M0": "float8_e8m0fnu",
    "F4": "float4_e2m1fn_x2",
}  # fmt: skip
"""torch's names by ours; of those below a byte torch has only F4, two entries an element."""
FROM_TORCH = {name: ours for ours, name in TORCH.items()}
STORAGES = {
    "float64": "DoubleStorage", "float32": "FloatStorage", "float16": "HalfStorage", "bfloat16": "BFloat16Storage",
    "int64": "LongStorage", "int32": "IntStorage", "int16": "ShortStorage", "int8": "CharStorage",
    "uint8": "ByteStorage", "bool": "BoolStorage", "complex64": "ComplexFloatStorage",
}  # fmt: skip
"""The classes of storages in `torch.save` files, by dtype; later dtypes have none of their own."""
_OTHER_BYTES = {"complex128": 16, "complex32": 4, "qint32": 4}


def element_bytes(dtype: str) -> int:
    """Bytes of an element of a dtype of torch's, one of ours or not."""
    ours = FROM_TORCH.get(dtype)
    return _OTHER_BYTES.get(dtype, 1) if ours is None else max(DTYPES[ours].bits, 8) // 8


def torch_shape(ours: str, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """The shape of a tensor in torch, which counts an F4 tensor's last dimension in pairs; None if it has none."""
    if not fits_array(DTYPES[ours], shape):
        return None
    if ours != "F4":
        return shape if ours in TORCH else None
    return (*shape[:-1], shape[-1] // 2) if shape and shape[-1] % 2 == 0 else None


def our_shape(ours: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a tensor of torch's, counted in entries."""
    if ours != "F4":
        return shape
    return (*shape[:-1], 2 * shape[-1]) if shape else (2,)
