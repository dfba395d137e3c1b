"""The pickle inside a `torch.save` file, read without running it: dicts and lists of numbers and tensors.

A pickle is a program that calls functions by name. Here no name leads to the function it means: each of the few known
ones leads to an inert stand-in of ours that only notes its arguments, any other name is refused. torch is not needed.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, ClassVar

from diffpack.checkpoints.stored_tensor import Storage, StoredTensor
from diffpack.checkpoints.torch_dtypes import STORAGES
from diffpack.errors import CheckpointError
from diffpack.support.names import printable

_STORAGES = {name: dtype for dtype, name in STORAGES.items()} | {
    "ComplexDoubleStorage": "complex128", "QInt8Storage": "qint8", "QUInt8Storage": "quint8",
    "QInt32Storage": "qint32", "QUInt4x2Storage": "quint4x2", "QUInt2x4Storage": "quint2x4",
}  # fmt: skip
_UNTYPED = {"torch.storage.UntypedStorage", "torch.UntypedStorage"}
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
    + ["torch.per_channel_affine_float_qparams"]
)
"""Names that are arguments and nothing to call."""
_MOST_SHOWN = 80  # letters of a key in an error
_UNUSED = (pickle.NEWOBJ, pickle.NEWOBJ_EX, pickle.INST, pickle.OBJ, pickle.EXT1, pickle.EXT2, pickle.EXT4)
"""Opcodes that make objects in other ways than calling a stand-in, or look them up past `find_class`."""


@dataclass(slots=True)
class _NumpyDtype:
    """Stands for numpy.dtype: its kind and width, and the byte order its state sets."""

    code: str
    order: str = "<"

    def set_order(self, state: Any) -> None:
        if not (isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "|", "=")):
            raise ValueError("a strange numpy dtype")
        self.order = state[1]


@dataclass(frozen=True, slots=True)
class _StandIn:
    """What a name in the pickle leads to: can be called, and nothing else."""

    name: str
    call: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Any:
        return self.call(*arguments)


class InertUnpickler(pickle._Unpickler):  # the C one takes memory for any memo index a file names
    """Python's unpickler, with every name replaced; `storage` gives the storage of a key, made at most once.

    `load` raises `CheckpointError` for a name that is not about tensors, and anything for a damaged or hostile pickle.
    """

    stack: list[Any]

    def __init__(self, file: IO[bytes], where: str, storage: Callable[[str, str, int], Storage]) -> None:
        super().__init__(file, encoding="utf-8")
        self._where = where
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in of a name. Raises `CheckpointError` for an unknown one."""
        full = f"{'builtins' if module == '__builtin__' else module}.{name}"
        if full in _WORDS or (module == "torch" and (name in _STORAGES or name in _DTYPES)) or full in _UNTYPED:
            return _StandIn(full, _refused)
        if full not in _KNOWN:
            raise CheckpointError(
                f"{self._where}: calls {printable(full)}, which is not about tensors: not read, nothing was run "
                "(only weights can be loaded, never code; save a plain dict of tensors)"
            )
        return _StandIn(full, _KNOWN[full])

    def persistent_load(self, pid: Any) -> Any:
        """The storage a tensor lies in, as its type sees it."""
        kind, storage_type, key, _, count, *view = pid
        if view not in ([], [None]):
            raise ValueError("a storage that is a part of another, as torch before 0.4 wrote it")
        if kind != "storage" or not isinstance(storage_type, _StandIn) or type(count) is not int or count < 0:
            raise ValueError("a storage of an unknown kind")
        untyped = storage_type.name in _UNTYPED
        dtype = "uint8" if untyped else _STORAGES.get(storage_type.name.removeprefix("torch."), "")
        if not isinstance(key, str) or not dtype:
            raise ValueError("a storage without a name or dtype")
        return self._storage(key, dtype, count)

    def _build(self) -> None:
        """Set the state of an object: of a numpy dtype its byte order; a dict's attributes are no weights."""
        state = self.stack.pop()
        if isinstance(self.stack[-1], _NumpyDtype):
            self.stack[-1].set_order(state)
        elif not isinstance(self.stack[-1], dict):
            raise ValueError("an object with a state")

    def _make(self) -> None:
        raise ValueError("it makes objects of classes")

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _fill(self.stack[-1], [key, value])

    def _set_items(self) -> None:
        items = self.pop_mark()  # type: ignore[attr-defined] # of Python's unpickler, which typeshed leaves out
        _fill(self.stack[-1], items)

    def _make_dict(self) -> None:
        items = self.pop_mark()  # type: ignore[attr-defined] # as above
        self.stack.append({})
        _fill(self.stack[-1], items)

    dispatch: ClassVar[dict[int, Callable[..., None]]] = {
        **pickle._Unpickler.dispatch,
        **dict.fromkeys((code[0] for code in _UNUSED), _make),
        pickle.BUILD[0]: _build,
        pickle.DICT[0]: _make_dict,
        pickle.SETITEM[0]: _set_item,
        pickle.SETITEMS[0]: _set_items,
    }


def _fill(members: Any, items: list[Any]) -> None:
    """Put keys and values, in turn, into a dict. Of a key that stands there twice readers would not take the same."""
    if not isinstance(members, dict):
        raise ValueError("items of what is no dict")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if key in members:
            raise ValueError(f"{str(key)[:_MOST_SHOWN]!r} stands there twice")
        members[key] = value


def _refused(*_: Any) -> Any:
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
    shape, strides = tuple(size), tuple(stride)
    if not isinstance(storage, Storage) or any(type(n) is not int or n < 0 for n in (first, *shape, *strides)):
        raise ValueError("a tensor of an impossible shape, or without a storage")
    if len(shape) != len(strides) or not (bits is None or isinstance(bits, dict)):
        raise ValueError("a tensor of an impossible shape")
    bits = bits or {}
    return StoredTensor(storage, dtype, first, shape, strides, bool(bits.get("conj")), bool(bits.get("neg")))


def _of_type(build: Any, _type: Any, arguments: Any, _state: Any = None) -> Any:
    """A tensor with attributes, or of a subclass (`torch._tensor._rebuild_from_type_v2`)."""
    if not isinstance(build, _StandIn) or not isinstance(arguments, tuple):
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
    _fill(members, [part for key, value in pairs for part in (key, value)])
    return members


def _latin1(text: Any, coding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or coding != "latin1":
        raise ValueError("bytes in an unknown coding")
    return text.encode("latin1")


def _plain(*arguments: Any) -> str:
    return repr(arguments)


_SCALARS = {
    "i8": "q", "i4": "i", "i2": "h", "i1": "b", "u8": "Q", "u4": "I", "u2": "H", "u1": "B", "f8": "d", "f4": "f",
}  # fmt: skip


def _numpy_dtype(code: Any, *_: Any) -> _NumpyDtype:
    if code not in _SCALARS:
        raise ValueError("a number of an unknown kind")
    return _NumpyDtype(code)


def _numpy_scalar(dtype: Any, raw: Any) -> int | float:
    """A numpy number as Python's: a loss or the first gap of a list often is one."""
    if not isinstance(dtype, _NumpyDtype) or not isinstance(raw, bytes):
        raise ValueError("a number of an unknown kind")
    order = ">" if dtype.order == ">" else "<"
    value: int | float = struct.unpack(order + _SCALARS[dtype.code], raw)[0]
    return value


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
    "builtins.set": _tuple,
    "builtins.complex": _plain,
    "builtins.bytearray": _plain,
    "_codecs.encode": _latin1,
    "numpy.dtype": _numpy_dtype,
    "numpy.core.multiarray.scalar": _numpy_scalar,
    "numpy._core.multiarray.scalar": _numpy_scalar,
}
