"""How near tensors are to one another, told by a few of their words: a sketch finds, a sample measures."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from diffpack.format.chunks import encode_chunk
from diffpack.format.values.exact import EXACT
from diffpack.tensors.dtypes import DType, Words, ordered
from diffpack.tensors.reference import Reference
from diffpack.tensors.word_source import WordSource

_RUNS, _RUN_WORDS = 16, 256
"""A sample: runs of neighbouring words, 4,096 in all, that tell the bytes of a tensor's steps to a few percent."""
_SKETCH_RUNS, _SKETCH_RUN_WORDS = 4, 16
"""A sketch: 64 words by which all tensors of a kind are compared first. They tell a near one from strangers."""
FIRST_WORDS = 8
"""Words of the sketch that most strangers are told by."""
FAR = 64
"""Coarse words so far apart, half the way to twice a float's size, are strangers'; how far does not matter."""
BETTER = 0.8
"""What another reference may cost of the present one's bytes: less is more than what a sample can be wrong by."""
NAME_BYTES = 64
"""What a source costs in the manifest, at most: two long names. Less is not worth one."""

SKETCH_WORDS = _SKETCH_RUNS * _SKETCH_RUN_WORDS

Sketch = npt.NDArray[np.int16]


def sample_of(
    words: WordSource, reference: Reference | None = None, runs: int = _RUNS, run_words: int = _RUN_WORDS
) -> Words:
    """A sample of a tensor's words, all if they are few; with `reference` that reference's, at the same places."""
    return np.concatenate(
        [words[a:b] if reference is None else reference.slice(a, b) for a, b in _places(words.size, runs, run_words)]
    )


def _places(size: int, runs: int, run_words: int) -> list[tuple[int, int]]:
    starts = [0]
    if size > runs * run_words:
        starts = np.linspace(0, size - run_words, runs).astype(int).tolist()
        size = run_words
    return [(start, start + size) for start in starts]


def sketch_of(words: WordSource, dtype: DType, reference: Reference | None = None) -> Sketch:
    """A few words, as `sample_of` takes them, made coarse: the upper 16 bits of floats, all bits of integers in 16."""
    return coarse(sample_of(words, reference, _SKETCH_RUNS, _SKETCH_RUN_WORDS), dtype)


def sketch_places(size: int) -> list[tuple[int, int]]:
    """(start, stop) of the runs of a sketch of `size` words."""
    return _places(size, _SKETCH_RUNS, _SKETCH_RUN_WORDS)


def coarse(words: Words, dtype: DType) -> Sketch:
    """The words of a sketch, made coarse."""
    line = ordered(words, dtype)
    bits = dtype.word_bits
    if dtype.signed_magnitude:
        line = line >> np.array(max(bits - 16, 0), line.dtype)
        bits = 16
    while bits > 16:
        bits //= 2
        line = line ^ (line >> np.array(bits, line.dtype))
    found: Sketch = line.astype(np.int16)
    return found


def distance(sketches: Sketch, one: Sketch) -> npt.NDArray[np.int64]:
    """How far each column of sketches is from one sketch, words that are far apart being no farther than `FAR`."""
    steps = np.abs(sketches - one[:, None]).view(np.uint16)  # modulo 2^16, where -2^15 is its own negative
    found: npt.NDArray[np.int64] = np.minimum(steps, np.uint16(FAR)).sum(axis=0, dtype=np.uint16).astype(np.int64)
    return found


def steps_cost(before: Words, after: Words, dtype: DType, profile: str) -> int:
    """The bytes that the steps of a sample take."""
    return len(encode_chunk([EXACT.encode(before, after, dtype)], profile).data)
