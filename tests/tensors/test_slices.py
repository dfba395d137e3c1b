"""An assembly is what numpy makes of its slices, whatever part of it is asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffpack.tensors.dtypes import DTYPES
from diffpack.tensors.info import TensorInfo
from diffpack.tensors.slices import AssembledWords, Assembly, Slice, Turned, exchanged

SHAPES = {"a": (4, 6), "b": (6, 4), "c": (2, 3, 4), "d": (24,)}
KINDS = ["U8", "BF16", "F32", "F64", "C64"]


def sources(kind: str) -> tuple[dict[str, TensorInfo], dict[str, Any], dict[str, Any]]:
    """Infos, words, and the words as arrays of the tensors' shapes (with two words an entry for complex numbers)."""
    dtype, rng = DTYPES[kind], np.random.default_rng(0)
    infos = {name: TensorInfo(dtype, shape) for name, shape in SHAPES.items()}
    words = {name: rng.integers(0, 255, info.words).astype(dtype.word) for name, info in infos.items()}
    per_entry = dtype.bits // dtype.word_bits
    return infos, words, {name: words[name].reshape(*SHAPES[name], per_entry) for name in SHAPES}


@st.composite
def assemblies(draw: st.DrawFn) -> Assembly:
    pieces = []
    for _ in range(draw(st.integers(1, 5))):
        name = draw(st.sampled_from(sorted(SHAPES)))
        first = draw(st.integers(0, 23))
        swapped = name != "d" and draw(st.booleans())
        pieces.append(Slice(name, swapped, first, draw(st.integers(1, 24 - first))))
    count = sum(piece.entries for piece in pieces)
    rows = draw(st.sampled_from([at for at in range(1, count + 1) if count % at == 0]))
    return Assembly((rows, count // rows), draw(st.booleans()), tuple(pieces))


def by_numpy(assembly: Assembly, arrays: dict[str, Any]) -> Any:
    found = []
    for source, swapped, first, entries in assembly.pieces:
        array = arrays[source].swapaxes(-2, -3) if swapped else arrays[source]
        found.append(array.reshape(-1, array.shape[-1])[first : first + entries])
    whole = np.concatenate(found)
    if assembly.swapped:
        whole = whole.reshape(*exchanged(assembly.shape), whole.shape[-1]).swapaxes(-2, -3)
    return whole.reshape(-1)


@given(assemblies(), st.sampled_from(KINDS), st.data())
def test_parts_of_it_are_those_of_the_whole(assembly: Assembly, kind: str, data: st.DataObject) -> None:
    infos, words, arrays = sources(kind)
    info = assembly.info(infos)
    assert info == TensorInfo(DTYPES[kind], assembly.shape)
    made = AssembledWords(assembly, info, infos, words, Turned())
    expected = by_numpy(assembly, arrays)
    assert (made.size, made.dtype) == (expected.size, expected.dtype)
    assert (made[0 : made.size] == expected).all()
    start, stop = sorted(data.draw(st.tuples(*[st.integers(0, made.size)] * 2)))
    assert (made[start:stop] == expected[start:stop]).all()
    places = np.array(sorted(data.draw(st.sets(st.integers(0, made.size - 1)))), np.int64)
    assert (made[places] == expected[places]).all()


def test_it_is_nothing_without_what_it_is_made_of() -> None:
    infos, _, _ = sources("F32")
    whole = Assembly((2, 12), False, (Slice("a", True, 4, 20), Slice("d", False, 0, 4)))
    assert whole.info(infos) == TensorInfo(DTYPES["F32"], (2, 12))
    assert whole.info({"a": infos["a"]}) is None
    assert whole.info(infos | {"d": TensorInfo(DTYPES["I32"], (24,))}) is None
    assert whole.info(infos | {"a": TensorInfo(DTYPES["F32"], (24,))}) is None
    assert whole.info(infos | {"d": TensorInfo(DTYPES["F32"], (3,))}) is None
    packed = {name: TensorInfo(DTYPES["F4"], shape) for name, shape in SHAPES.items()}
    assert whole.info(packed) is None


@pytest.mark.parametrize("swapped", [False, True])
def test_what_is_not_swapped_is_read_in_place(swapped: bool) -> None:
    infos, words, _ = sources("F32")
    assembly = Assembly((4, 6), False, (Slice("a", False, 0, 24),))
    assembly = replace(assembly, pieces=(assembly.pieces[0]._replace(swapped=swapped),))
    info = assembly.info(infos)
    assert info is not None
    made = AssembledWords(assembly, info, infos, words, Turned())
    assert np.shares_memory(made[0:24], words["a"]) is not swapped
