"""The files of spec/example-levels.md, -grid.md, -factors.md and -slices.md, made anew; a program that prints them.

    python -m tests.tools.worked_examples levels|grid|factors|slices

The streams come from the library's own writer, the frame around them from `craft`. Manifests are raw, to be readable
and the same under every version of zstd.
"""

from __future__ import annotations

import sys
from typing import NamedTuple

import numpy as np

from diffpack.format.factors.line import INT, FactorLine
from diffpack.format.positions import levels
from diffpack.format.positions.geometry import Geometry
from diffpack.format.streams import Numbers
from diffpack.tensors.dtypes import DTYPES, exponents
from tests.tools import craft
from tests.tools.craft import Stream, Tensors

ROW = 4096
"""Words of a row of the first example: as many as close a class."""
SCALE = np.float32(2**-10)


class Example(NamedTuple):
    """A file, its base, and what applying gives."""

    data: bytes
    base: Tensors
    result: Tensors


def levels_example() -> Example:
    """Two rows of float16, of which one changes: words of two classes, by the row's level and the exponent."""
    base = np.repeat(np.array([1.0, 4.0], np.float16), ROW)
    steps = np.zeros(2 * ROW, np.int16)
    steps[ROW + 2], steps[ROW + 4000] = 3, -1
    result = (base.view(np.int16) + steps).view(np.float16)  # positive numbers: words are ordered as they are
    plan = levels.Plan(rows=np.array([0, 1], np.int8), slope=1)
    shape = (2, ROW)
    classes = plan.split(
        Geometry.of([(DTYPES["F16"], shape, 0, 2 * ROW)]), exponents(base.view(np.uint16), DTYPES["F16"])
    )
    old, new = {"w": ("F16", shape, base.tobytes())}, {"w": ("F16", shape, result.tobytes())}
    group = craft.group(["w"], old, new, positions="levels", counts=[2])
    manifest = craft.manifest(old, new, [group], requires=["levels"])
    chunk = _streams(levels.encode(plan, classes, steps))
    return Example(craft.build(manifest, [chunk], minor=1), old, new)


def grid_example() -> Example:
    """Six words of float32, of which four change, by -2, -1, 1 and 3 cells of a grid."""
    base = np.array([1.0, 2.0, 0.5, 4.0, 1.0, -0.0], np.float32)
    numbers, offsets = np.array([1, 0, -2, 3, -1, 0], np.int16), [-16, 32, 0]
    units = np.array([256 - 16, 0, -(512 + 32), 768 + 0, -(256 - 16), 0], np.float32)
    result = np.where(numbers == 0, base, base + units * SCALE)
    shape, plan = (2, 3), levels.Plan()
    classes = plan.split(Geometry.of([(DTYPES["F32"], shape, 0, 6)]), None)
    old, new = {"w": ("F32", shape, base.tobytes())}, {"w": ("F32", shape, result.tobytes())}
    group = craft.group(["w"], old, new, positions="levels", values="grid")
    manifest = craft.manifest(old, new, [group], requires=["grid", "levels"])
    scales = [Stream("raw", "u32", 1, SCALE.tobytes())]
    chunks = [scales, _streams(levels.encode(plan, classes, numbers, [offsets]))]
    return Example(craft.build(manifest, chunks, minor=1), old, new)


def factors_example() -> Example:
    """Six words of float32 as a matrix of rank 1, and a grid that changes three of them; where both come to 0, none."""
    base = np.array([1.0, 2.0, 0.5, 4.0, 1.0, -0.0], np.float32)
    left, right, weight, scale = np.array([1, -2], np.int16), np.array([3, -1, 0], np.int16), 4, np.float32(2**-7)
    numbers, offsets, grid = np.array([0, 1, 3, -2, 0, 0], np.int16), [0, -64, 32], np.float32(2**-13)
    units = np.array([0, 256 + 0, 768 + 32, -(512 - 64), 0, 0], np.float32)
    value = np.outer(left, right).reshape(-1).astype(np.float32) * weight * scale + units * grid
    result = np.where(value == 0, base, base + value)
    shape, plan = (2, 3), levels.Plan()
    classes = plan.split(Geometry.of([(DTYPES["F32"], shape, 0, 6)]), None)
    line = FactorLine([(*shape, (1,))])
    factors = plan.split(line.geometry(0, line.length), None)
    old, new = {"w": ("F32", shape, base.tobytes())}, {"w": ("F32", shape, result.tobytes())}
    table = {"values": INT, "matrices": [[*shape, [1]]], "ends": [line.length]}
    group = craft.group(["w"], old, new, positions="levels", values="grid", factors=table)
    manifest = craft.manifest(old, new, [group], requires=["grid", "levels", "lowrank"])
    chunks = [
        _streams([np.array([grid]).view(np.uint32), np.array([scale]).view(np.uint32), np.array([weight], np.uint16)]),
        _streams(levels.encode(plan, factors, np.concatenate([left, right]))),
        _streams(levels.encode(plan, classes, numbers, [offsets])),
    ]
    return Example(craft.build(manifest, chunks, minor=2), old, new)


def slices_example() -> Example:
    """Two tensors of float32 over one another, turned, as one, of which one word changes by one step."""
    k, q = np.array([[5.0, 6.0]], np.float32), np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
    qk = np.concatenate([q, k]).T.copy()
    tuned = qk.copy()
    tuned[1, 1] = np.nextafter(np.float32(4.0), np.float32(5.0))
    old = {"k": ("F32", k.shape, k.tobytes()), "q": ("F32", q.shape, q.tobytes())}
    made, new = {"qk": ("F32", qk.shape, qk.tobytes())}, {"qk": ("F32", qk.shape, tuned.tobytes())}
    assembly = {"shape": [2, 3], "swapped": True, "pieces": [["q", False, 0, 4], ["k", False, 0, 2]]}
    group = craft.group(["qk"], made, new)
    members = {"requires": ["slices"], "removed": ["k", "q"], "slices": {"qk": assembly}}
    manifest = craft.manifest(old, new, [group], **members)
    chunk = [craft.stream("u8", [4]), craft.stream("i32", [1])]
    return Example(craft.build(manifest, [chunk], minor=2), old, new)


EXAMPLES = {"levels": levels_example, "grid": grid_example, "factors": factors_example, "slices": slices_example}


def _streams(arrays: list[Numbers]) -> list[Stream]:
    return [Stream("raw", f"{a.dtype.kind}{8 * a.itemsize}", a.size, a.tobytes()) for a in arrays]


def hex_lines(data: bytes) -> list[str]:
    """The bytes as the pages show them, part by part: header, each chunk's, manifest, trailer."""
    manifest = int.from_bytes(data[-72:-64], "little")
    lines = []
    for start, stop in ((0, 16), (16, manifest), (manifest, len(data) - 72), (len(data) - 72, len(data))):
        for at in range(start, stop, 16):
            part = data[at : min(at + 16, stop)]
            text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
            lines.append(f"{at:08x}  {part.hex(' '):<47}  |{text}|")
        lines.append("")
    return lines


if __name__ == "__main__":
    print("\n".join(hex_lines(EXAMPLES[sys.argv[1]]().data)))
