"""What the names in a pickle of `torch.save` lead to: inert stand-ins, of which none runs what the name means."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from diffpack.checkpoints.pickled_array import PickledArray, PickledDtype, number
from diffpack.checkpoints.stored_tensor import Storage, StoredTensor
from diffpack.checkpoints.torch_dtypes import STORAGES
from diffpack.format import limits

STORAGE_DTYPES = {name: dtype for dtype, name in STORAGES.items()} | {
    "ComplexDoubleStorage": "complex128", "QInt8Storage": "qint8", "QUInt8Storage": "quint8",
    "QInt32Storage": "qint32", "QUInt4x2Storage": "quint4x2", "QUInt2x4Storage": "quint2x4",
}  # fmt: skip
UNTYPED = {"torch.storage.UntypedStorage", "torch.UntypedStorage"}
_DTYPES = frozenset(
    ["bool", "complex32", "complex64", "complex128", "bfloat16", "float16", "float32", "float64", "float4_e2m1fn_x2"]
    + [f"{sign}int{bits}" for sign in ("", "u") for bits in (*range(1, 8), 8, 16, 32, 64)]
    + [f"float8_{kind}" for kind in ("e4m3fn", "e4m3fnuz", "e5m2", "e5m2fnuz", "e8m0fnu")]
    + [f"bits{name}" for name in ("1x8", "2x4", "4x2", "8", "16")]
    + ["qint8", "quint8", "qint32", "quint4x2", "quint2x4"]
)
_WORDS = frozenset(
    ["torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer"]
    + [f"torch.per_{kind}" for kind in ("tensor_affine", "tensor_symmetric", "channel_affine", "channel_symmetric")]
    + ["torch.per_channel_affine_float_qparams", "numpy.ndarray"]
    + [f"builtins.{name}" for name in ("list", "dict", "int", "long", "float", "str", "object")]
)
"""Names that are arguments and nothing to call."""
_STATE = frozenset(
    ["argparse.Namespace", "types.SimpleNamespace", "collections.deque", "decimal.Decimal"]
    + ["builtins.frozenset", "builtins.range", "builtins.xrange", "builtins.slice"]
    + [f"datetime.{name}" for name in ("date", "datetime", "time", "timedelta", "timezone")]
    + [
        f"{module}.{flavour}{system}Path"
        for module in ("pathlib", "pathlib._local")
        for flavour in ("", "Pure")
        for system in ("Posix", "Windows")
    ]
)
"""Classes of what training scripts keep beside the weights: settings, times, places. Nothing of them is kept or run."""
_ARRAY = "numpy.ndarray"
_MOST_SHOWN = 80  # letters of a key in an error
_MOST_PARTS, _MOST_BITS = 64, 64  # of a key that is a tuple, or a number


class Opaque:
    """An object that is no weights; what is put into it is dropped."""

    def set_state(self, _: Any) -> None:
        """Drop it."""

    append = extend = set_state


@dataclass(frozen=True, slots=True)
class StandIn:
    """What a name in the pickle leads to: can be called, and nothing else."""

    name: str
    call: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Any:
        """Note the arguments."""
        return self.call(*arguments)


def stand_in(module: str, name: str) -> StandIn | None:
    """The stand-in of a name, or None for one that is not about tensors."""
    full = f"{'builtins' if module == '__builtin__' else module}.{name}"
    if full in _WORDS or (module == "torch" and (name in STORAGE_DTYPES or name in _DTYPES)) or full in UNTYPED:
        return StandIn(full, refused)
    return StandIn(full, _KNOWN[full]) if full in _KNOWN else None


def fill(members: Any, items: list[Any]) -> None:
    """Put keys and values, in turn, into a dict. Of a key that stands there twice readers would not take the same."""
    if isinstance(members, Opaque):
        return
    if not isinstance(members, dict):
        raise ValueError("items of what is no dict")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not _is_plain(key):
            raise ValueError("a key that is no name, number, or short tuple of such")
        if key in members:
            raise ValueError(f"{str(key)[:_MOST_SHOWN]!r} stands there twice")
        members[key] = value


def _is_plain(key: Any) -> bool:
    """Whether a key is one that is hashed at once: a tuple of tuples that share theirs may hold any number of them."""
    if type(key) is tuple:
        return len(key) <= _MOST_PARTS and all(type(part) is not tuple and _is_plain(part) for part in key)
    if type(key) is int:
        return key.bit_length() <= _MOST_BITS
    return key is None or isinstance(key, str | bytes | float | StandIn | Opaque | bool)


def refused(*_: Any) -> Any:
    """What calling a name does that is only an argument."""
    raise ValueError("a class where a tensor is expected")


def _tensor(
    storage: Any, first: Any, size: Any, stride: Any, _grad: Any = False, _hooks: Any = None, bits: Any = None
) -> StoredTensor:
    return _stored(storage, storage.dtype, first, size, stride, bits)


def _typed_tensor(
    storage: Any, first: Any, size: Any, stride: Any, _grad: Any, _hooks: Any, dtype: Any, bits: Any = None
) -> StoredTensor:
    """A tensor of a dtype that no storage class has."""
    return _stored(storage, dtype.name.removeprefix("torch."), first, size, stride, bits)


def _stored(storage: Any, dtype: str, first: Any, size: Any, stride: Any, bits: Any) -> StoredTensor:
    if not isinstance(size, tuple | list) or not isinstance(stride, tuple | list):
        raise ValueError("a tensor of an impossible shape")
    if max(len(size), len(stride)) > limits.DIMENSIONS:  # before they are looked at: tensors may share them
        raise ValueError(f"a tensor of {len(size)} dimensions: more than a diff can hold")
    shape, strides = tuple(size), tuple(stride)
    if not isinstance(storage, Storage) or not all(map(is_size, (first, *shape, *strides))):
        raise ValueError("a tensor of an impossible shape, or without a storage")
    if len(shape) != len(strides) or not (bits is None or isinstance(bits, dict)):
        raise ValueError("a tensor of an impossible shape")
    bits = bits or {}
    return StoredTensor(storage, dtype, first, shape, strides, bool(bits.get("conj")), bool(bits.get("neg")))


def is_size(number: Any) -> bool:
    """Whether a number may be that of entries: products of larger ones take longer than a file explains."""
    return type(number) is int and 0 <= number <= limits.JSON_INTEGER


def _of_type(build: Any, _type: Any, arguments: Any, _state: Any = None) -> Any:
    """A tensor with attributes, or of a subclass (`torch._tensor._rebuild_from_type_v2`)."""
    if not isinstance(build, StandIn) or not isinstance(arguments, tuple):
        raise ValueError("a tensor of an unknown kind")
    return build(*arguments)


def _parameter(tensor: Any, *_: Any) -> Any:
    if not isinstance(tensor, StoredTensor):
        raise ValueError("a parameter that is no tensor")
    return tensor


def _no_array(kind: str) -> Callable[..., StoredTensor]:
    """A stand-in for the builders of tensors that are no plain arrays: known, and refused once one is asked for."""
    return lambda *_: StoredTensor(None, kind, 0, (), ())


def _tuple(numbers: Any = ()) -> tuple[Any, ...]:
    return tuple(numbers)


def _dict(items: Any = ()) -> dict[Any, Any]:
    pairs = items.items() if isinstance(items, dict) else items
    members: dict[Any, Any] = {}
    fill(members, [part for key, value in pairs for part in (key, value)])
    return members


def _default_dict(*_: Any) -> dict[Any, Any]:
    return {}


def _latin1(text: Any, coding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or coding != "latin1":
        raise ValueError("bytes in an unknown coding")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """What protocol 2 calls for `b""`."""
    return b""


def _plain(*_: Any) -> Opaque:
    return Opaque()


def _numpy_dtype(code: Any, *_: Any) -> PickledDtype:
    if not isinstance(code, str):
        raise ValueError("a strange numpy dtype")
    return PickledDtype(code)


def _numpy_array(kind: Any, *_: Any) -> PickledArray:
    """An array that its state fills."""
    if not isinstance(kind, StandIn) or kind.name != _ARRAY:
        raise ValueError("an array of an unknown kind")
    return PickledArray()


def _numpy_buffer(raw: Any, dtype: Any, shape: Any, order: Any) -> PickledArray:
    """An array of a pickle of protocol 5."""
    array = PickledArray()
    array.fill(raw, dtype, shape, order == "F")
    return array


def _opaque(*_: Any) -> Opaque:
    return Opaque()


def instance(kind: Any, *_: Any) -> Opaque:
    """An object whose class is one of `_STATE` (`copyreg._reconstructor`)."""
    if not isinstance(kind, StandIn) or kind.name not in _STATE:
        raise ValueError("it makes objects of classes")
    return Opaque()


_KNOWN: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _of_type,
    "torch._utils._rebuild_sparse_tensor": _no_array("sparse"),
    "torch._utils._rebuild_sparse_csr_tensor": _no_array("sparse"),
    "torch._utils._rebuild_qtensor": _no_array("quantized"),
    "torch._utils._rebuild_nested_tensor": _no_array("nested"),
    "torch._utils._rebuild_meta_tensor_no_storage": _no_array("meta"),
    "torch._utils._rebuild_wrapper_subclass": _no_array("wrapped"),
    "torch.serialization._get_layout": _plain,
    "torch.Size": _tuple,
    "torch.device": _plain,
    "collections.OrderedDict": _dict,
    "collections.Counter": _dict,
    "collections.defaultdict": _default_dict,
    "builtins.set": _tuple,
    "builtins.complex": _plain,
    "builtins.bytearray": _plain,
    "builtins.bytes": _no_bytes,
    "_codecs.encode": _latin1,
    "numpy.dtype": _numpy_dtype,
    **{
        f"numpy.{core}.{name}": stand_in
        for core in ("core", "_core")
        for name, stand_in in (
            ("multiarray.scalar", number), ("multiarray._reconstruct", _numpy_array),
            ("numeric._frombuffer", _numpy_buffer),
        )
    },
    "copyreg._reconstructor": instance,
    "copy_reg._reconstructor": instance,
    **dict.fromkeys(_STATE, _opaque),
}  # fmt: skip
