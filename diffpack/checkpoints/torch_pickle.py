"""The pickle inside a `torch.save` file, read without running it: dicts and lists of numbers and tensors.

A pickle is a program that calls functions by name. Here no name leads to the function it means: each of the few known
ones leads to an inert stand-in of ours that only notes its arguments, any other name is refused. torch is not needed.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from typing import IO, Any, ClassVar

from diffpack.checkpoints.pickled_array import PickledArray, PickledDtype
from diffpack.checkpoints.stored_tensor import Storage
from diffpack.checkpoints.torch_stand_ins import (
    STORAGE_DTYPES,
    UNTYPED,
    Opaque,
    StandIn,
    fill,
    instance,
    is_size,
    stand_in,
)
from diffpack.errors import CheckpointError
from diffpack.format.limits import Allowance
from diffpack.support.names import printable

_UNUSED = (pickle.NEWOBJ_EX, pickle.INST, pickle.OBJ, pickle.EXT1, pickle.EXT2, pickle.EXT4)
"""Opcodes that make objects in other ways than calling a stand-in, or look them up past `find_class`."""
_MADE = Allowance(1 << 24, 16)
"""Bytes that calls may give, by the file's: a few bytes of a pickle can ask for one more copy of all before them."""


class InertUnpickler(pickle._Unpickler):  # the C one takes memory for any memo index a file names
    """Python's unpickler, with every name replaced; `storage` gives the storage of a key, made at most once.

    `size` is that of the file, which what is made of it goes by.

    `load` raises `CheckpointError` for a name that is not about tensors, and anything for a damaged or hostile pickle.
    """

    stack: list[Any]

    def __init__(self, file: IO[bytes], size: int, where: str, storage: Callable[[str, str, int], Storage]) -> None:
        super().__init__(file, encoding="utf-8")
        self._most = size
        self._left = _MADE.most(size)
        self._where = where
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in of a name. Raises `CheckpointError` for an unknown one."""
        found = stand_in(module, name)
        if found is None:
            called = printable(f"{module}.{name}")
            raise CheckpointError(
                f"{self._where}: calls {called}, which is not about tensors: not read, nothing was run "
                "(only weights can be loaded, never code; save a plain dict of tensors)"
            )
        return found

    def persistent_load(self, pid: Any) -> Any:
        """The storage a tensor lies in, as its type sees it."""
        kind, storage_type, key, _, count, *view = pid
        if view not in ([], [None]):
            raise ValueError("a storage that is a part of another, as torch before 0.4 wrote it")
        if kind != "storage" or not isinstance(storage_type, StandIn) or not is_size(count):
            raise ValueError("a storage of an unknown kind")
        untyped = storage_type.name in UNTYPED
        dtype = "uint8" if untyped else STORAGE_DTYPES.get(storage_type.name.removeprefix("torch."), "")
        if not isinstance(key, str) or not dtype:
            raise ValueError("a storage without a name or dtype")
        return self._storage(key, dtype, count)

    def _build(self) -> None:
        """Set the state of an object: of NumPy's what they are made of; a dict's attributes are no weights."""
        state = self.stack.pop()
        if isinstance(self.stack[-1], PickledDtype | PickledArray | Opaque):
            self.stack[-1].set_state(state)
        elif not isinstance(self.stack[-1], dict):
            raise ValueError("an object with a state")

    def _call(self) -> None:
        """Call a stand-in."""
        arguments = self.stack.pop()
        self.stack[-1] = self.stack[-1](*arguments)
        self._left -= sys.getsizeof(self.stack[-1])
        if self._left < 0:
            raise ValueError("its calls make more than a file of its size needs")

    def _bytes(self) -> None:
        """A bytearray, for which Python takes memory before it reads."""
        length = int.from_bytes(self.read(8), "little")  # type: ignore[attr-defined] # of Python's unpickler, which typeshed leaves out
        if length > self._most:
            raise ValueError("it ends before its bytes do")
        self.stack.append(bytearray(self.read(length)))  # type: ignore[attr-defined] # of Python's unpickler, which typeshed leaves out

    def _make_set(self) -> None:
        """A set, or a frozen one, is its items: none of them is hashed."""
        items = self.pop_mark()  # type: ignore[attr-defined] # of Python's unpickler, which typeshed leaves out
        self.stack.append(tuple(items))

    def _make(self) -> None:
        raise ValueError("it makes objects of classes")

    def _make_state(self) -> None:
        """An object of a class that training scripts keep beside the weights."""
        self.stack.pop()
        self.stack.append(instance(self.stack.pop()))

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        fill(self.stack[-1], [key, value])

    def _set_items(self) -> None:
        items = self.pop_mark()  # type: ignore[attr-defined] # of Python's unpickler, which typeshed leaves out
        fill(self.stack[-1], items)

    def _make_dict(self) -> None:
        items = self.pop_mark()  # type: ignore[attr-defined] # as above
        self.stack.append({})
        fill(self.stack[-1], items)

    dispatch: ClassVar[dict[int, Callable[..., None]]] = {
        **pickle._Unpickler.dispatch,
        **dict.fromkeys((code[0] for code in _UNUSED), _make),
        pickle.NEWOBJ[0]: _make_state,
        pickle.REDUCE[0]: _call,
        pickle.BYTEARRAY8[0]: _bytes,
        pickle.EMPTY_SET[0]: pickle._Unpickler.dispatch[pickle.EMPTY_LIST[0]],
        pickle.ADDITEMS[0]: pickle._Unpickler.dispatch[pickle.APPENDS[0]],
        pickle.FROZENSET[0]: _make_set,
        pickle.BUILD[0]: _build,
        pickle.DICT[0]: _make_dict,
        pickle.SETITEM[0]: _set_item,
        pickle.SETITEMS[0]: _set_items,
    }
